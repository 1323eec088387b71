"""The perturbed network itself."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.analyses.robustness import subject_of
from layerscope.engine.batches import Forward, outputs_of
from layerscope.engine.untouched import untouched
from layerscope.models.initialisers import Laws
from layerscope.perturb import Variant
from layerscope.trajectory import Trajectory


def materialize(
    model: nn.Module,
    trajectory: Trajectory,
    variant: Variant,
    *,
    laws: Laws | None = None,
    seed: int = 0,
    forward: Forward = outputs_of,
    calibration: Iterable[Any] | None = None,
) -> nn.Module:
    """The network of a Variant, as a new module to keep or save; `model` and trajectory stay as they are.

    It computes the numbers that `evaluate` gives for the same Variant, laws and seed (and calibration data, if its buffers
    are recalibrated).
    """
    subject = subject_of(model, trajectory, laws, seed, forward, calibration)
    with untouched(model), torch.no_grad():
        values = {name: tensor.clone() for name, tensor in subject.values(variant).items()}
    made = _copy(model)
    made.load_state_dict({**made.state_dict(), **values})
    return made


def _copy(model: nn.Module) -> nn.Module:
    """A deep copy. Tensors that a forward left behind as attributes are copied without their history, which cannot be."""
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, memo)
