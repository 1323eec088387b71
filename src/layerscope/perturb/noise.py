"""Add normal noise to a Part, where it is or elsewhere on its way from the start."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from layerscope.errors import UseError
from layerscope.partition import Part, Slice
from layerscope.perturb.interpolate import Interpolate
from layerscope.perturb.patch import Patch
from layerscope.perturb.trained import realless, remade
from layerscope.perturb.variant import World, perturbation


@perturbation
@dataclass(frozen=True)
class Noise:
    """Each of the Part's parameters has an independent draw from N(0, sigma^2) added (sigma is a standard deviation): to its
    trained value, or with alpha < 1 to that of `Interpolate(alpha)`. A draw is sigma times one of N(0, 1) that is the same at
    every sigma and alpha. Buffers stay.

    Source: chatterji2020, Sec. 3 (theta^alpha + u).
    """

    KIND: ClassVar[str] = "noise"
    sigma: float
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < math.inf:
            raise UseError(f"sigma is a standard deviation, a number not below 0, not {self.sigma}")
        Interpolate(self.alpha)  # refuses an alpha that is none

    def refused(self, part: Part, world: World) -> str:
        """Why there can be no such noise on a Part; empty where there can."""
        return realless("noise is added to", part, world) if self.alpha == 1 else self._way.refused(part, world)

    def patch(self, part: Part, world: World, draw: int) -> Patch:
        if reason := self.refused(part, world):
            raise UseError(f"{part.name} cannot have noise: {reason}")

        def make(where: Slice, old: Tensor, generator: torch.Generator) -> Tensor:
            centre = old if self.alpha == 1 else self._way.at(where, old, world)
            return centre + self.sigma * torch.randn(old.shape, generator=generator, dtype=torch.float32).to(old)

        return remade(part, world, draw, self.KIND, make)

    def coordinates(self, world: World, draw: int) -> dict[str, Any]:
        return {"alpha": self.alpha, "sigma": self.sigma, "draw": draw}

    @property
    def _way(self) -> Interpolate:
        return Interpolate(self.alpha)
