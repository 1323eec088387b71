"""Which tensors are changed together: Parts, and the Partition of a network into Parts. Names only: never loads torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

WHOLE = "whole network"
"""The name of the Part of all tensors."""
ROOT = "(root)"
"""The name of the Part of parameters that the model owns itself, outside any submodule."""


@dataclass(frozen=True)
class Part:
    """A named set of tensors that is changed together, and the modules that own them.

    `tensors` are names of `state_dict()`; a tied tensor is listed under all its names.
    """

    name: str
    tensors: tuple[str, ...]
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Partition:
    """An ordered list of disjoint Parts. Every tensor of the model is in one Part or in `left_out`, with the reason."""

    parts: tuple[Part, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        tensors = [name for part in self.parts for name in part.tensors]
        if len(set(names)) < len(names) or len(set(tensors)) < len(tensors):
            raise ValueError("Parts must have different names and no tensor in common")

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

        A module's buffers (such as batch norm's running statistics) belong to its Part. A parameter that several
        modules share belongs to the first of them, under all its names. Modules with buffers only are left out.
        Source: zhang2022, Sec. 2 ("layers"); a layer there is a linear map with its bias, or a norm layer.
        """
        firsts = first_names(model)
        groups: dict[str, set[str]] = {}
        for name, first in firsts.items():
            groups.setdefault(first, set()).add(name)
        aliases = {name: groups[first] for name, first in firsts.items()}
        names = list(firsts)
        parts, left_out, taken = [], {}, set()
        for path, module in model.named_modules():
            own = [_join(path, name) for name, _ in module.named_parameters(recurse=False)]
            buffers = [_join(path, name) for name, _ in module.named_buffers(recurse=False)]
            mine = {alias for name in own for alias in aliases[name]} - taken
            held = {alias for name in buffers if name in aliases for alias in aliases[name]} - taken
            if mine:
                mine |= held
                parts.append(Part(path or ROOT, tuple(name for name in names if name in mine), (path,)))
            else:
                reason = (
                    "its parameters are tied to an earlier Part" if own else "a buffer of a module without parameters"
                )
                left_out |= {name: reason for name in names if name in held}
            taken |= mine | held
        return cls(tuple(parts), left_out)


def whole(model: "nn.Module") -> Part:
    """The Part of all tensors: with it, the whole network is put to a checkpoint."""
    return Part(WHOLE, tuple(model.state_dict()), ("",))


def first_names(model: "nn.Module") -> dict[str, str]:
    """Name in the state dict -> the first name of the same tensor: another one for tied weights and modules used twice."""
    firsts: dict[int, str] = {}
    named = model.state_dict(keep_vars=True).items()
    return {name: firsts.setdefault(id(tensor), name) for name, tensor in named}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
