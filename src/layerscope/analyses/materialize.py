"""The perturbed network itself."""

import copy

from torch import nn

from layerscope.models.initialisers import Laws, laws_of
from layerscope.perturb import Variant, World
from layerscope.perturb.patch import changed
from layerscope.state import state_of
from layerscope.step import FINAL
from layerscope.trajectory import Trajectory


def materialize(
    model: nn.Module, trajectory: Trajectory, variant: Variant, *, laws: Laws | None = None, seed: int = 0
) -> nn.Module:
    """The network of a Variant, as a new module to keep or save; `model` and trajectory stay as they are.

    It computes the numbers that `evaluate` gives for the same variant, laws and seed.
    """
    trajectory.check(state_of(model))
    world = World(trajectory, laws_of(model) if laws is None else laws, seed)
    made = copy.deepcopy(model)
    made.load_state_dict(changed(model, trajectory[FINAL], variant.patch(world)))
    return made
