"""Put a Part back to the values it had at an earlier step."""

from dataclasses import dataclass
from typing import ClassVar

from layerscope.partition import Part
from layerscope.perturb.patch import Patch
from layerscope.perturb.variant import World, perturbation
from layerscope.step import INIT, Step


@perturbation
@dataclass(frozen=True)
class Rewind:
    """The Part takes its values at a step of the trajectory; at INIT this is re-initialisation. Nothing is retrained.

    Source: zhang2022, Sec. 2 (re-initialisation); chatterji2020 (rewinding).
    """

    KIND: ClassVar[str] = "rewind"
    to: Step = INIT

    def patch(self, part: Part, world: World, draw: int) -> Patch:
        return Patch.of(part, world.trajectory.tensors(self.to, part.tensors))

    def coordinates(self, world: World, draw: int) -> dict[str, int]:
        step = world.trajectory.resolve(self.to)
        return {"step": step.epoch} | ({"iteration": step.iteration} if step.iteration else {})
