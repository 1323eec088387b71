"""Vocabulary of changes: a Perturbation says what, an Edit where, a Variant all that decides its numbers."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, get_args, get_type_hints, runtime_checkable

import torch
from torch import nn

from layerscope import spec
from layerscope.errors import UseError, unknown
from layerscope.models.initialisers import AnyLaw, Law, Laws, following
from layerscope.partition import Part, Slice, first_names
from layerscope.perturb.patch import Patch
from layerscope.spec import BuffersRule
from layerscope.state import State, dense, tensors_of
from layerscope.step import Step
from layerscope.trajectory import Trajectory


@dataclass(frozen=True)
class World:
    """What perturbations may draw on: the network's history, the laws of its start, the seed of the study; which tensors
    are buffers, which tensors are computed from weights, and how (`computed`); of each tensor one `like` it (shape and dtype,
    without values), and the first of its names (`firsts`)."""

    trajectory: Trajectory
    laws: Laws
    seed: int = 0
    buffers: frozenset[str] = frozenset()
    computed: Mapping[str, AnyLaw] = field(default_factory=dict)
    like: State = field(default_factory=dict)
    firsts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, trajectory: Trajectory, laws: Laws, seed: int = 0) -> "World":
        buffers = frozenset(name for name, _ in model.named_buffers(remove_duplicate=False))
        like = {name: torch.empty_like(dense(tensor), device="meta") for name, tensor in tensors_of(model).items()}
        return cls(trajectory, laws, seed, buffers, following(model), like, first_names(model))

    def lawless(self, part: Part) -> list[str]:
        """The parameters of a Part that cannot be re-randomised, because nobody has said from which law."""
        return [name for name in part.tensors if name not in self.laws and name not in self.buffers]

    def lacking(self, part: Part, step: Step) -> str:
        """Why a Part cannot be put back to a step: which of its parameters, or of what is computed from them, a pretrained
        network does not have. Empty where it can."""
        there = self.trajectory.lacking(step)
        needed = [name for name in part.tensors if name in there and name not in self.buffers - self.computed.keys()]
        absent = [name for name in needed if there[name] is None]
        other = [f"{name} ({list(shape)} there)" for name in needed if (shape := there[name]) is not None]
        said = [f"{_some(absent)} cannot be found in the pretrained network"] if absent else []
        said += [f"{_some(other)} had another shape in the pretrained network"] if other else []
        return "; ".join(said)

    def is_constant(self, part: Part) -> bool:
        """Whether every draw of a Part is the same."""
        laws = [self.laws[name] for name in part.tensors if name in self.laws]
        return all(isinstance(law, Law) and law.kind == "constant" for law in laws)

    def draws(self, part: Part, wanted: int) -> int:
        """How many draws of a Part there are to look at: none without a law, one if all are the same."""
        if self.lawless(part):
            return 0
        return min(wanted, 1) if self.is_constant(part) else wanted


@runtime_checkable
class Perturbation(Protocol):
    """What happens at a place. A new one is a frozen dataclass in a file of its own, whose fields are Steps or plain
    values."""

    KIND: ClassVar[str]

    def patch(self, part: Part, world: World, draw: int) -> Patch:
        """The values of the Part after the change."""
        ...

    def coordinates(self, world: World, draw: int) -> dict[str, Any]:
        """The coordinates of the table that place this change."""
        ...


K = TypeVar("K", bound=type)

KINDS: dict[str, type] = {}
"""KIND -> perturbation: what the JSON of a Variant may name."""


def perturbation(kind: K) -> K:
    """Makes a perturbation known by its KIND, so that a Variant with it can be read back from JSON."""
    KINDS[kind.KIND] = kind  # type: ignore[attr-defined]
    return kind


@dataclass(frozen=True)
class Edit:
    """One Perturbation at one place."""

    part: Part
    perturbation: Perturbation

    def to_dict(self) -> dict[str, Any]:
        """Plain values that describe the Edit whole."""
        fields = {name: str(v) if isinstance(v, Step) else v for name, v in _fields(self.perturbation).items()}
        return {
            "part": self.part.name,
            "slices": [_plain(where) for where in self.part.slices],
            "modules": list(self.part.modules),
            "perturbation": {"kind": self.perturbation.KIND, **fields},
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Edit":
        """The Edit of `to_dict`."""
        fields = dict(plain["perturbation"])
        kind = fields.pop("kind")
        if kind not in KINDS:
            raise unknown("perturbation", kind, KINDS)
        hints = get_type_hints(KINDS[kind])
        values = {name: Step.parse(v) if hints.get(name) is Step else _tuples(v) for name, v in fields.items()}
        slices = tuple(Slice(where["tensor"], where["axis"], _tuples(where["ranges"])) for where in plain["slices"])
        return cls(Part(plain["part"], slices, tuple(plain["modules"])), KINDS[kind](**values))


@dataclass(frozen=True)
class Variant:
    """A set of Edits, a draw and a rule for buffers: everything that decides its numbers, beside the network and the
    data."""

    edits: tuple[Edit, ...] = ()
    draw: int = 0
    buffers: BuffersRule | str = "recalibrate"

    def __post_init__(self) -> None:
        if self.buffers not in get_args(BuffersRule):
            raise unknown("rule for buffers", self.buffers, get_args(BuffersRule))

    @classmethod
    def of(
        cls, part: Part, perturbation: Perturbation, draw: int = 0, *, buffers: BuffersRule | str = "recalibrate"
    ) -> "Variant":
        """The Variant with one Edit. `Variant()` is the unmodified network."""
        return cls((Edit(part, perturbation),), draw, buffers)

    def patch(self, world: World) -> Patch:
        """The replaced values; Edits that touch the same values are an error. Unless buffers are rewound, they are left
        out, but for those that are computed from the weights: they belong to them."""
        patches = [edit.perturbation.patch(edit.part, world, self.draw) for edit in self.edits]
        patch = Patch.merge(patches, world.firsts)
        return patch if self.buffers == "rewind" else patch.without(world.buffers - world.computed.keys())

    def to_dict(self) -> dict[str, Any]:
        """Plain values that describe the Variant whole."""
        return {"edits": [edit.to_dict() for edit in self.edits], "draw": self.draw, "buffers": self.buffers}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Variant":
        """The Variant that `to_dict` described, as in the `variants` of a table."""
        try:
            edits = tuple(Edit.from_dict(edit) for edit in plain["edits"])
            return cls(edits, plain["draw"], plain["buffers"])
        except (KeyError, TypeError) as problem:
            raise UseError(f"this does not describe a variant: {type(problem).__name__} {problem}") from None

    @property
    def id(self) -> str:
        """12 hexadecimal digits, the key of the table's `variants`."""
        return spec.fingerprint(self.to_dict(), digits=12)

    def row(self, world: World) -> dict[str, Any]:
        """How a table places this Variant: id, Part, perturbation and its coordinates."""
        row: dict[str, Any] = {"variant": self.id, "perturbation": "none"}
        if self.edits:
            row["part"] = " + ".join(edit.part.name for edit in self.edits)
            row["perturbation"] = " + ".join(dict.fromkeys(edit.perturbation.KIND for edit in self.edits))
        for edit in self.edits:
            row |= edit.perturbation.coordinates(world, self.draw)
        return row


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _fields(perturbation: Perturbation) -> dict[str, Any]:
    return {field.name: getattr(perturbation, field.name) for field in dataclasses.fields(perturbation)}  # type: ignore[arg-type]


def _plain(where: Slice) -> dict[str, Any]:
    return {"tensor": where.tensor, "axis": where.axis, "ranges": [list(pair) for pair in where.ranges]}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list | tuple) else value
