"""Put a Part back to the values it had at an earlier step."""

from dataclasses import dataclass
from typing import ClassVar

from layerscope.errors import UseError
from layerscope.partition import Part
from layerscope.perturb.patch import Patch
from layerscope.perturb.variant import World, perturbation
from layerscope.step import INIT, Step


@perturbation
@dataclass(frozen=True)
class Rewind:
    """The Part takes its values at a step of the trajectory; at INIT this is re-initialisation. Nothing is retrained.

    A buffer that a pretrained network does not have stays as it is; a parameter that it does not have is an error.
    Source: zhang2022, Sec. 2 (re-initialisation); chatterji2020 (rewinding).
    """

    KIND: ClassVar[str] = "rewind"
    to: Step = INIT

    def patch(self, part: Part, world: World, draw: int) -> Patch:
        if lacking := world.lacking(part, self.to):
            raise UseError(f"{part.name} cannot be put back: {lacking}")
        there = [name for name in part.tensors if name not in world.trajectory.lacking(self.to)]
        return Patch.of(part, world.trajectory.tensors(self.to, there))

    def coordinates(self, world: World, draw: int) -> dict[str, int]:
        return world.trajectory.coordinates(self.to)
