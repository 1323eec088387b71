"""Draw a Part afresh from the law it started from."""

from dataclasses import dataclass
from typing import ClassVar

from layerscope import rng
from layerscope.errors import UseError
from layerscope.partition import Part
from layerscope.perturb.patch import Patch
from layerscope.perturb.variant import World, perturbation

INSTEAD = "give one in laws=, or draw from the trained values: redraw permutation or moments"
"""What can be done about a law that nobody knows."""


@perturbation
@dataclass(frozen=True)
class Rerandomize:
    """The Part takes fresh values, drawn from its own initial law. Each tensor's draw depends on study seed, tensor name
    and draw index alone; a Slice takes its share of the draw of the whole tensor.

    A buffer without a law stays as it is: it was not drawn, but set. A parameter without one is an error.
    Source: zhang2022, Sec. 2 (re-randomisation).
    """

    KIND: ClassVar[str] = "rerandomize"

    def refused(self, part: Part, world: World) -> str:
        """Why a Part cannot be re-randomised; empty where it can."""
        lawless = ", ".join(world.lawless(part))
        return f"no initial law is known for {lawless}; {INSTEAD}" if lawless else ""

    def patch(self, part: Part, world: World, draw: int) -> Patch:
        if reason := self.refused(part, world):
            raise UseError(reason)
        address = lambda name: rng.generator(world.seed, "rerandomize", name, draw)  # noqa: E731
        drawn = {
            name: world.laws[name].draw(name, world.like[name], address) for name in part.tensors if name in world.laws
        }
        return Patch.of(part, drawn)

    def coordinates(self, world: World, draw: int) -> dict[str, int]:
        return {"draw": draw}
