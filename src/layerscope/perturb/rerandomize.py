"""Draw a Part afresh from the law it started from."""

from dataclasses import dataclass
from typing import ClassVar

from layerscope import rng
from layerscope.errors import UseError
from layerscope.partition import Part
from layerscope.perturb.patch import Patch
from layerscope.perturb.variant import World
from layerscope.step import FINAL


@dataclass(frozen=True)
class Rerandomize:
    """The Part takes fresh values, drawn from its own initial law. Each tensor's draw depends on study seed, tensor name
    and draw index alone.

    Source: zhang2022, Sec. 2 (re-randomisation).
    """

    KIND: ClassVar[str] = "rerandomize"

    def patch(self, part: Part, world: World, draw: int) -> Patch:
        if unknown := [name for name in part.tensors if name not in world.laws]:
            raise UseError(f"no initial law is known for {', '.join(unknown)}; give one in laws=")
        trained = world.trajectory.tensors(FINAL, part.tensors)
        return Patch(
            {
                name: world.laws[name].sample(like, rng.generator(world.seed, "rerandomize", name, draw))
                for name, like in trained.items()
            }
        )

    def coordinates(self, world: World, draw: int) -> dict[str, int]:
        return {"draw": draw}
