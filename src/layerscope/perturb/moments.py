"""Draw a Part afresh from laws with the moments of its trained values."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from layerscope.errors import UseError
from layerscope.models.laws import Law, fitted
from layerscope.partition import Part, Slice
from layerscope.perturb.patch import Patch
from layerscope.perturb.trained import realless, remade, trained, unchanging
from layerscope.perturb.variant import World, perturbation


@perturbation
@dataclass(frozen=True)
class Moments:
    """Each tensor of the Part takes independent draws from the law (normal, uniform or constant) that has the moments of its
    trained values; a Slice from that of its own. Buffers stay. It needs no start and no law, and is no re-initialisation: the
    spread of trained values is not that of initial ones.
    """

    KIND: ClassVar[str] = "moments"

    def refused(self, part: Part, world: World) -> str:
        """Why a Part has no such draws; empty where it has."""
        return realless("moments are those of", part, world) or unchanging(part, world)

    def laws(self, part: Part, world: World) -> dict[Slice, Law]:
        """What a Part's Slices are drawn from."""
        return {where: _law(where, values, world) for where, values in trained(part, world).items()}

    def patch(self, part: Part, world: World, draw: int) -> Patch:
        if reason := self.refused(part, world):
            raise UseError(f"{part.name} cannot be drawn afresh: {reason}")

        def make(where: Slice, old: Tensor, generator: torch.Generator) -> Tensor:
            return _law(where, old, world).sample(old, generator)

        return remade(part, world, draw, self.KIND, make)

    def coordinates(self, world: World, draw: int) -> dict[str, int]:
        return {"draw": draw}


def _law(where: Slice, values: Tensor, world: World) -> Law:
    """The padding row of an embedding stays zero, if the whole of it is drawn."""
    zero = None if where.ranges else getattr(world.laws.get(where.tensor), "zero", None)
    return replace(fitted(values, zero), fitted=False)
