"""The Partition of a network into Parts, and all the ways to make one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layerscope.errors import UseError
from layerscope.partition import blocks, coverage, cuts, groups, joint, layers, names
from layerscope.partition.part import Part, Slice, overlap

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Partition:
    """An ordered list of disjoint Parts. Every tensor of the model is in one Part or in `left_out`, with the reason.

    A tensor of which some is in Parts may be in `left_out` too: this says why the rest of it is in none.
    The ways to make one (`by_...`) raise UseError if a tensor has no shape yet: then the model must see one batch first.
    """

    parts: tuple[Part, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        taken = [part.name for part in self.parts]
        rule = "Parts must have different names and no tensor in common"
        if twice := sorted({name for name in taken if taken.count(name) > 1}):
            raise UseError(f"{rule}: several are named {twice[0]!r}")
        held: dict[str, list[tuple[str, Slice]]] = {}
        for part in self.parts:
            for each in part.slices:
                others = held.setdefault(each.tensor, [])
                for name, other in others:
                    if overlap(each, other):
                        raise UseError(f"{rule}: {name!r} has {other}, {part.name!r} has {each}")
                others.append((part.name, each))

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, name: str) -> Part:
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(f"no Part {name!r}; there are: {', '.join(part.name for part in self.parts)}")

    @classmethod
    def by_layer(cls, model: "nn.Module") -> "Partition":
        """One Part for each module that owns parameters itself, in the order of the model's modules.

        - A module's buffers (such as batch norm's running statistics) belong to its Part. Modules with buffers only are
          left out.
        - A parameter that several modules share belongs to the Part of the first, named after all ("wte = lm_head"). What
          else the others own is a Part under their own name.
        - What a parametrisation (weight norm, spectral norm) puts below a module belongs to the module.
        - Each layer of a stacked recurrent module is a Part ("lstm.l0"), with both its directions.

        Source: zhang2022, Sec. 2 ("layers"); a layer there is a linear map with its bias, or a norm layer.
        """
        return cls(*layers.by_layer(model))

    @classmethod
    def by_module(cls, model: "nn.Module", depth: int = 1) -> "Partition":
        """One Part for each module at this depth of the tree, with all that is below it; 1 for the model's own children.

        Shallower modules without children are Parts as they are; so are the tensors that a shallower module owns itself.
        A weight that is tied between two such modules is a Part of its own, named after its owners.
        Errors: UseError for a depth below 1.
        """
        return cls(*groups.by_module(model, depth))

    @classmethod
    def by_block(cls, model: "nn.Module", of: str | None = None) -> "Partition":
        """One Part for each residual or transformer block; all other layers are Parts of their own.

        Blocks are found from the tree: the topmost modules of at least two layers (and more than a plain container)
        whose class occurs at least twice; but of a tower or a stage, which holds a list of such modules, the elements
        are the blocks. `of` names their class instead, or several as "A|B".
        Errors: UseError if there is no module of a class in `of`.
        """
        return cls(*blocks.by_block(model, of))

    @classmethod
    def by_stage(cls, model: "nn.Module", of: str | None = None) -> "Partition":
        """One Part for the blocks of each container, named by its path (ResNet: "layer1"); else as `by_block`.

        Errors: UseError if there is no module of a class in `of`.
        """
        return cls(*blocks.by_stage(model, of))

    @classmethod
    def by_pattern(cls, model: "nn.Module", patterns: Mapping[str, str]) -> "Partition":
        """Parts by tensor names: Part name -> glob pattern, or several as "a.*|b.*". What matches none is left out.

        A tied tensor goes with all its names where one of them matches.
        Errors: UseError for a tensor that is matched for two Parts, and for a pattern that matches nothing.
        """
        return cls(*names.by_pattern(model, patterns))

    @classmethod
    def by_projection(cls, model: "nn.Module") -> "Partition":
        """As `by_layer`, but attention's packed queries, keys and values are Parts: "attn.q", "attn.k", "attn.v".

        Known are `nn.MultiheadAttention`, and modules named ...Attention with one linear map `qkv` or `c_attn` to three
        times its inputs. Others have a layer for each already, or stay whole.
        """
        return cls(*cuts.by_projection(model))

    @classmethod
    def by_head(cls, model: "nn.Module") -> "Partition":
        """As `by_layer`, but attention is divided into heads: "attn.head0" has the head's queries, keys, values and outputs.

        These are rows of the input projections and columns of the output projection, whose bias stays a Part of the
        layer's name. Keys and values that several heads share are Parts "attn.kv0". Known are the forms of
        `by_projection`, and modules with a number of heads and a linear map each for queries, keys and values. What is
        tied to other modules, and what does not divide evenly, stays whole.
        """
        return cls(*cuts.by_head(model))

    def joined(self, groups: Mapping[str, Sequence[str]]) -> "Partition":
        """The Partition with joint groups: name -> the Parts (names or glob patterns) that become one.

        It stands where the first of them was; other Parts stay as they are.
        Errors: UseError for an unknown Part, one in two groups, an empty group, and a name that another Part has.
        """
        return Partition(joint.joined(self.parts, groups), self.left_out)

    def check(self, model: "nn.Module") -> None:
        """Whether the Partition fits the model.

        Errors: UseError if it names what the model does not have, tears tied tensors apart, or leaves a tensor (or some
        of its indices) unaccounted for.
        """
        coverage.check(model, self.parts, self.left_out)
