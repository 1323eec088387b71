"""Put a Part somewhere on the straight way from its start to its trained values."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from layerscope.errors import UseError
from layerscope.partition import Part, Slice
from layerscope.perturb.patch import Patch, take
from layerscope.perturb.trained import realless, remade
from layerscope.perturb.variant import World, perturbation
from layerscope.step import GIVE_START, INIT


@perturbation
@dataclass(frozen=True)
class Interpolate:
    """The Part's parameters take the values (1 - alpha) start + alpha trained, 0 <= alpha <= 1: at 0 the start and at 1 the
    trained values, both exactly. Buffers stay.

    Source: chatterji2020, Sec. 3 (the convex combination theta^alpha; Definition 3.1).
    """

    KIND: ClassVar[str] = "interpolate"
    alpha: float

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UseError(f"alpha is a place between the start (0) and the trained values (1), not {self.alpha}")

    def refused(self, part: Part, world: World) -> str:
        """Why a Part has no such way; empty where it has."""
        if not world.trajectory.has_start:
            return f"the way begins at the start, which is missing: {GIVE_START}"
        if lacking := world.lacking(part, INIT):
            return lacking
        return realless("there is a way between", part, world)

    def patch(self, part: Part, world: World, draw: int) -> Patch:
        if reason := self.refused(part, world):
            raise UseError(f"{part.name} cannot be interpolated: {reason}")
        return remade(part, world, draw, self.KIND, lambda where, old, _: self.at(where, old, world))

    def at(self, where: Slice, old: Tensor, world: World) -> Tensor:
        """What a Slice with the trained values `old` has there."""
        (start,) = world.trajectory.tensors(INIT, [where.tensor]).values()
        return torch.lerp(take(start, where).to(old), old, self.alpha)

    def coordinates(self, world: World, draw: int) -> dict[str, float]:
        return {"alpha": self.alpha}
