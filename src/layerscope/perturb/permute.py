"""Put a Part's trained values in random order."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from layerscope.errors import UseError
from layerscope.partition import Part
from layerscope.perturb.patch import Patch
from layerscope.perturb.trained import remade, unchanging
from layerscope.perturb.variant import World, perturbation


@perturbation
@dataclass(frozen=True)
class Permute:
    """Each tensor of the Part has its own trained values in random order: their distribution is the same, what was learned is
    destroyed. A Slice is permuted within itself. Buffers stay. It needs no start and no law, and is no re-initialisation: the
    spread of trained values is not that of initial ones.
    """

    KIND: ClassVar[str] = "permute"

    def refused(self, part: Part, world: World) -> str:
        """Why a Part cannot be permuted; empty where it can."""
        return unchanging(part, world)

    def patch(self, part: Part, world: World, draw: int) -> Patch:
        if reason := self.refused(part, world):
            raise UseError(f"{part.name} cannot be permuted: {reason}")
        return remade(
            part,
            world,
            draw,
            self.KIND,
            lambda _, old, generator: old.flatten()[
                torch.randperm(old.numel(), generator=generator).to(old.device)
            ].view(old.shape),
        )

    def coordinates(self, world: World, draw: int) -> dict[str, int]:
        return {"draw": draw}
