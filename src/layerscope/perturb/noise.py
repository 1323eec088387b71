"""Add normal noise to a Part, where it is or elsewhere on its way from the start."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from layerscope.errors import UseError
from layerscope.partition import Part, Slice
from layerscope.perturb.interpolate import Interpolate
from layerscope.perturb.patch import Patch
from layerscope.perturb.trained import realless, remade, trained
from layerscope.perturb.variant import World, perturbation

START = Interpolate(0.0)


@perturbation
@dataclass(frozen=True)
class Noise:
    """Each of the Part's parameters has an independent draw from N(0, sigma^2) added (sigma is a standard deviation): to its
    trained value, or with alpha < 1 to that of `Interpolate(alpha)`. A draw is sigma times one of N(0, 1) that is the same at
    every sigma and alpha. Buffers stay.

    With `side` 1 or -1 the noise lies on that side of the way: the sign of its inner product with the Part's start. A draw with
    the other sign is turned round (u and -u have the same law), so that one draw serves both sides.

    Source: chatterji2020, Sec. 3 (theta^alpha + u) and Fig. 1 (the sides).
    """

    KIND: ClassVar[str] = "noise"
    sigma: float
    alpha: float = 1.0
    side: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < math.inf:
            raise UseError(f"sigma is a standard deviation, a number not below 0, not {self.sigma}")
        if self.side not in (-1, 0, 1):
            raise UseError(f"side is 1 or -1, or 0 for noise as it comes, not {self.side}")
        Interpolate(self.alpha)  # refuses an alpha that is none

    def refused(self, part: Part, world: World) -> str:
        """Why there can be no such noise on a Part; empty where there can."""
        if self.alpha == 1 and not self.side:
            return realless("noise is added to", part, world)
        if (reason := self._way.refused(part, world)) or not self.side:
            return reason
        starts = (START.at(where, old, world) for where, old in trained(part, world).items())
        return "" if any(bool(start.any()) for start in starts) else "its start is zero, so that noise has no side"

    def patch(self, part: Part, world: World, draw: int) -> Patch:
        if reason := self.refused(part, world):
            raise UseError(f"{part.name} cannot have noise: {reason}")
        turned = self.side and self.side * self._inner(part, world, draw) < 0

        def make(where: Slice, old: Tensor, generator: torch.Generator) -> Tensor:
            normal = _normal(old, generator)
            return self.at(where, old, -normal if turned else normal, world)

        return remade(part, world, draw, self.KIND, make)

    def at(self, where: Slice, old: Tensor, normal: Tensor, world: World) -> Tensor:
        """What a Slice with the trained values `old` has in a draw with these `normals`."""
        centre = old if self.alpha == 1 else self._way.at(where, old, world)
        return torch.add(centre, normal, alpha=self.sigma)

    def coordinates(self, world: World, draw: int) -> dict[str, Any]:
        side = {"side": self.side} if self.side else {}
        return {"alpha": self.alpha, "sigma": self.sigma, "draw": draw, **side}

    def _inner(self, part: Part, world: World, draw: int) -> float:
        """The inner product of a draw and the start; each value counts once, under however many names."""
        products: dict[Slice, float] = {}
        for where, normal in normals(part, world, draw).items():
            once = replace(where, tensor=world.firsts.get(where.tensor, where.tensor))
            products[once] = float((START.at(where, normal, world).double() * normal.double()).sum())
        return sum(products.values())

    @property
    def _way(self) -> Interpolate:
        return Interpolate(self.alpha)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)


def normals(part: Part, world: World, draw: int) -> dict[Slice, Tensor]:
    """The numbers of N(0, 1) of a draw, by Slice of a Part's parameters: at every sigma and alpha the same."""
    made = remade(part, world, draw, Noise.KIND, lambda _, old, generator: _normal(old, generator)).slices
    return {where: values for where, values in made.items() if where.tensor not in world.buffers}
