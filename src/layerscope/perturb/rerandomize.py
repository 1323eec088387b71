"""Draw a Part afresh from the law it started from."""

from dataclasses import dataclass
from typing import ClassVar

from layerscope import rng
from layerscope.errors import UseError
from layerscope.partition import Part
from layerscope.perturb.patch import Patch
from layerscope.perturb.variant import World, perturbation


@perturbation
@dataclass(frozen=True)
class Rerandomize:
    """The Part takes fresh values, drawn from its own initial law. Each tensor's draw depends on study seed, tensor name
    and draw index alone; a Slice takes its share of the draw of the whole tensor.

    A buffer without a law stays as it is: it was not drawn, but set. A parameter without one is an error.
    Source: zhang2022, Sec. 2 (re-randomisation).
    """

    KIND: ClassVar[str] = "rerandomize"

    def patch(self, part: Part, world: World, draw: int) -> Patch:
        if lawless := world.lawless(part):
            raise UseError(f"no initial law is known for {', '.join(lawless)}; give one in laws=")
        address = lambda name: rng.generator(world.seed, "rerandomize", name, draw)  # noqa: E731
        drawn = {
            name: world.laws[name].draw(name, world.like[name], address) for name in part.tensors if name in world.laws
        }
        return Patch.of(part, drawn)

    def coordinates(self, world: World, draw: int) -> dict[str, int]:
        return {"draw": draw}
