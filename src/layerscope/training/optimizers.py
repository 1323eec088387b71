"""Optimisers by name."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from layerscope.training.spec import TrainSpec

Parameters = Iterable[Tensor]


def _sgd(parameters: Parameters, spec: TrainSpec) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, spec.lr, spec.momentum, weight_decay=spec.weight_decay, fused=True)


def _adam(parameters: Parameters, spec: TrainSpec) -> torch.optim.Optimizer:
    betas = (spec.momentum, 0.999 if spec.smoothing is None else spec.smoothing)
    return torch.optim.Adam(parameters, spec.lr, betas, weight_decay=spec.weight_decay, fused=True)


def _rmsprop(parameters: Parameters, spec: TrainSpec) -> torch.optim.Optimizer:
    alpha = 0.99 if spec.smoothing is None else spec.smoothing
    return torch.optim.RMSprop(
        parameters, spec.lr, alpha, momentum=spec.momentum, weight_decay=spec.weight_decay, foreach=True
    )


OPTIMIZERS: dict[str, Callable[[Parameters, TrainSpec], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "rmsprop": _rmsprop,
}


def optimizer_of(parameters: Parameters, spec: TrainSpec) -> torch.optim.Optimizer:
    """The optimiser of the spec for all parameters that are not frozen, as PyTorch defines it (weight decay is an L2 penalty)."""
    return OPTIMIZERS[spec.optimizer]([p for p in parameters if p.requires_grad], spec)


def state_of_optimizer(named: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors of an optimiser of these parameters, as `KEY.PARAMETER`."""
    return {
        f"{key}.{name}": value
        for name, parameter in named.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore(named: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Give an optimiser the tensors of `state_of_optimizer`, laid out in memory as their parameters are."""
    for label, value in state.items():
        key, _, name = label.partition(".")
        parameter = named[name]
        if value.shape == parameter.shape and key != "step":
            place = torch.empty_like(parameter)
        else:  # a count of steps: where fused optimisers have it, or on the CPU
            place = torch.empty_like(value, device=parameter.device if optimizer.defaults.get("fused") else "cpu")
        optimizer.state[parameter][key] = place.detach().copy_(value)
