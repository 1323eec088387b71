"""The path norm: the weights along all ways through a network."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.measures.operator import Convolution, Transposed
from layerscope.perturb.swap import places

Squared = dict[str, Tensor]
STRAIGHT = (nn.ReLU, nn.LeakyReLU, nn.Identity)
"""Activations that pass what is positive as it is."""
TOLERANCE = 1e-6
"""Of the affinity of a network of squared weights: what rounding may take from it."""


def squared(model: nn.Module, values: Mapping[str, Tensor]) -> Squared | str:
    """Place -> value, in float64, of the network in which the weight of each way through `model` is squared, for the model's
    `values` by place; or why there is none.

    Weights and biases of linear layers and convolutions are squared. A batch norm is the linear map that it is in evaluation
    mode, whose factor and offset are squared.
    """
    modules = dict(model.named_modules())
    found = {place: value.double() if value.is_floating_point() else value for place, value in values.items()}
    for path, module in modules.items():
        kind = type(module).__name__
        if type(module).__module__ == "torch.nn.modules.activation" and not isinstance(module, STRAIGHT):
            return f"{path or 'the network'} ({kind}) is no sum over paths, even for positive numbers"
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is None:
                return f"{path} ({kind}) has no running statistics, so that it is no linear map"
            found |= _norm(path, module, found)
    for place, own, is_buffer in places(model):
        path, _, name = place.rpartition(".")
        owner = modules[path]
        if is_buffer or isinstance(owner, nn.modules.batchnorm._BatchNorm):
            continue
        if not isinstance(owner, nn.Linear | Convolution | Transposed) or name not in ("weight", "bias"):
            return f"{place} ({type(owner).__name__}) is no weight of a linear layer or convolution, or of a batch norm"
        found[place] = found.get(place, own.detach()).double().square()
    return found


def _norm(path: str, module: nn.modules.batchnorm._BatchNorm, values: Mapping[str, Tensor]) -> Squared:
    """Statistics and parameters with which a batch norm multiplies by the square of its factor and adds that of its offset."""
    at = (lambda name: f"{path}.{name}") if path else (lambda name: name)
    mean, variance, eps = values[at("running_mean")], values[at("running_var")], float(module.eps)
    squares = {at("running_var"): (variance + eps).square() - eps}  # its root, with eps, is variance + eps
    if module.weight is None:
        return squares | {at("running_mean"): -mean.square()}
    weight, bias = values[at("weight")], values[at("bias")]
    offset = bias - mean * weight / (variance + eps).sqrt()
    return squares | {
        at("running_mean"): torch.zeros_like(mean),
        at("weight"): weight.square(),
        at("bias"): offset.square(),
    }


def log_path_norm(outputs: Callable[[float], Any]) -> float | str:
    """log sqrt of the sum over all paths from an input or a bias to an output of the product of their squared weights; or why
    there is none.

    `outputs(x)` are those of the network of squared weights (`squared`) where each input is x, in float64. What a path norm is
    of must be affine in x >= 0, which is looked at in four places. Max pooling passes the largest of its sums, average pooling
    their mean, so that with pooling the sum is not over all paths: it is what is commonly computed.

    Source: Neyshabur, Tomioka and Srebro, Norm-based capacity control in neural networks, 2015, Sec. 3, there without biases,
    which are weights from an input that is always 1; computed as in Jiang et al., Fantastic generalization measures and where
    to find them, 2020.
    """
    found = {x: outputs(x) for x in (0.0, 1e-3, 1.0, 2.0)}
    if not all(isinstance(each, Tensor) for each in found.values()):
        return "the network's outputs are no tensor"
    zero, little, one, two = (float(each.double().sum()) for each in found.values())
    slope = one - zero
    bent = max(abs(two - zero - 2 * slope), abs(little - zero - 1e-3 * slope) * 1e3)
    if not bent <= TOLERANCE * abs(one):  # also where they overflow
        return "the network with squared weights is not affine in positive inputs, or overflows, so that it has no sum over paths"
    if not one > 0:
        return "no path has a weight, so that its logarithm is none"
    return float(torch.tensor(one, dtype=torch.float64).log() / 2)
