"""Vocabulary of changes: a Perturbation says what, an Edit where, a Variant all that decides its numbers."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from layerscope import spec
from layerscope.models.initialisers import Laws
from layerscope.partition import Part
from layerscope.perturb.patch import Patch
from layerscope.trajectory import Trajectory


@dataclass(frozen=True)
class World:
    """What perturbations may draw on: the network's history, the laws of its start, and the seed of the study."""

    trajectory: Trajectory
    laws: Laws
    seed: int = 0


@runtime_checkable
class Perturbation(Protocol):
    """What happens at a place. A new one is a frozen dataclass in a file of its own."""

    KIND: ClassVar[str]

    def patch(self, part: Part, world: World, draw: int) -> Patch:
        """The tensors of the Part after the change."""
        ...

    def coordinates(self, world: World, draw: int) -> dict[str, Any]:
        """The coordinates of the table that place this change."""
        ...


@dataclass(frozen=True)
class Edit:
    """One Perturbation at one place."""

    part: Part
    perturbation: Perturbation


@dataclass(frozen=True)
class Variant:
    """A set of Edits and a draw: everything that decides its numbers, beside the network and the data."""

    edits: tuple[Edit, ...] = ()
    draw: int = 0

    @classmethod
    def of(cls, part: Part, perturbation: Perturbation, draw: int = 0) -> "Variant":
        """The Variant with one Edit. `Variant()` is the unmodified network."""
        return cls((Edit(part, perturbation),), draw)

    def patch(self, world: World) -> Patch:
        """The replaced tensors; Edits that touch the same tensor are an error."""
        return Patch.merge(edit.perturbation.patch(edit.part, world, self.draw) for edit in self.edits)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that describe the Variant whole."""
        edits = [
            {
                "part": edit.part.name,
                "tensors": list(edit.part.tensors),
                "perturbation": edit.perturbation.KIND,
                **dataclasses.asdict(edit.perturbation),  # type: ignore[arg-type]
            }
            for edit in self.edits
        ]
        return {"edits": edits, "draw": self.draw}

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
