"""Theorem B.2 of chatterji2020 on a network: whether it is of that kind, and what the bound then is."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.analyses.spec import BoundsSpec
from layerscope.engine.batches import moved
from layerscope.engine.subject import Subject
from layerscope.engine.task import Task
from layerscope.engine.untouched import untouched
from layerscope.measures import lanczos
from layerscope.measures.bounds import Module, sigma_b_2, theorem_b_2
from layerscope.measures.operator import Bracket, Operator
from layerscope.metrics.error import margin
from layerscope.step import FINAL, INIT

LINEAR = (nn.Conv2d, nn.Linear)
BETWEEN = (nn.ReLU, nn.Flatten, nn.Identity, nn.Dropout)
"""What may stand between linear maps: in evaluation it makes no difference of two inputs larger, and scales with its input."""
Row = dict[str, Any]


class Unfit(Exception):  # noqa: N818 (not an error: the theorem is about other networks)
    """The theorem says nothing about this network; the message says why."""


def margin_bound(subject: Subject, task: Task, spec: BoundsSpec, delta: float) -> tuple[Row, dict[str, Any]]:
    """The value of Theorem B.2, the share of samples whose margin is at most gamma (`error`), the sum of nats (`complexity`) and
    what the bound assumes (`reason`); and the norms and sigmas of layers. Raises `Unfit`.

    All alpha are 1: only so is the condition on the largest difference of f and f^alpha over all inputs that there may be known
    to hold. It is 0 then; samples cannot show that it is small.
    """
    layers = layers_of(subject.model)
    absent = [name for name in subject.world.trajectory.lacking(INIT) if name in dict(subject.model.named_parameters())]
    if absent:
        raise Unfit(f"it is about how far layers moved, and {absent[0]} has no start")
    with untouched(subject.model), torch.no_grad():
        sizes, radius, margins, norms = subject.run(subject.unmodified(), lambda net: _seen(net, subject, task, layers))
    if spec.radius is not None and radius > spec.radius:
        raise Unfit(f"an input has the norm {radius:.6g}, above radius={spec.radius:g}")
    bound = spec.radius or radius
    side = max((max(size) + 2 * _pad(layers[path]) for path, size in sizes.items()), default=1)
    modules, about = [], {}
    total = math.prod(norm.high for norm in norms.values())
    for path, layer in layers.items():
        name = f"{path}.weight" if path else "weight"
        (start,), (end,) = (subject.world.trajectory.tensors(step, [name]).values() for step in (INIT, FINAL))
        channels, kernel = max(layer.weight.shape[:2]), layer.weight.shape[-1] if layer.weight.ndim > 2 else 1
        others = math.prod(norm.high for other, norm in norms.items() if other != path) if total else 0.0
        sigma = sigma_b_2(spec.gamma, bound, len(layers), side, kernel, channels, others)
        modules.append(Module(end.numel(), float((end.double() - start.double()).norm()), 1.0, sigma))
        about[path] = {"norm": norms[path].high, "sigma": sigma}
    m, error = len(margins), float((margins <= spec.gamma).double().mean())
    value = theorem_b_2(error, modules, m, delta - sum(norm.risk for norm in norms.values()))
    assumed = f"if no input that there may be is longer than {bound:.6g}, as none of these samples is"
    row = {"value": value, "error": error, "complexity": sum(one.nats for one in modules), "n": m}
    facts = {"gamma": spec.gamma, "radius": bound, "side": side, "layers": about}
    return row | {"reason": "" if spec.radius else assumed}, facts


def layers_of(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Path -> linear map, of a sequence of convolutions and linear layers without biases, and ReLUs. Raises `Unfit`."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if type(module) not in (nn.Sequential, *LINEAR, *BETWEEN):
            raise Unfit(
                "it is about sequences of convolutions or linear layers and ReLU, and "
                f"{path or 'the network'} is a {type(module).__name__}"
            )
        if isinstance(module, LINEAR):
            found[path] = module
            _check(path, module)
    weights = [id(layer.weight) for layer in found.values()]
    if not found or len(set(weights)) < len(weights):
        raise Unfit("it is about networks whose layers have weights of their own")
    return found


def _check(path: str, layer: nn.Conv2d | nn.Linear) -> None:
    if layer.bias is not None:
        raise Unfit(f"it is about layers without biases, and {path} has one")
    if isinstance(layer, nn.Conv2d):
        square = len(set(layer.kernel_size)) == 1 and isinstance(layer.padding, tuple) and len(set(layer.padding)) == 1
        if not square or layer.groups > 1 or layer.padding_mode != "zeros":
            raise Unfit(
                f"it is about convolutions with square kernels, zeros around the image and no groups, unlike {path}"
            )


def _pad(layer: Any) -> int:
    return int(layer.padding[0])


def _seen(
    network: nn.Module, subject: Subject, task: Task, layers: Mapping[str, nn.Module]
) -> tuple[dict[str, tuple[int, ...]], float, Tensor, dict[str, Bracket]]:
    """Of the trained network: the sizes of the images that convolutions get, the norm of the longest input, the margin of each
    sample, and the spectral norm of each layer."""
    sizes: dict[str, tuple[int, ...]] = {}
    longest: list[float] = []

    def watch(path: str) -> Any:
        return lambda _, inputs: sizes.update({path: tuple(inputs[0].shape[2:])})  # None: inputs stay

    hooks = [network.register_forward_pre_hook(lambda _, inputs: longest.append(_length(inputs[0])))]
    hooks += [layer.register_forward_pre_hook(watch(p)) for p, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    margins = []
    for batch in task.data:
        outputs, targets = subject.outputs(network, batch), moved(task.targets(batch), subject.device)
        if outputs.ndim != 2:
            raise Unfit(f"it is about one class a sample, and outputs have the shape {list(outputs.shape)}")
        margins.append(margin(outputs.double(), targets).flatten())
    for hook in hooks:
        hook.remove()
    if uneven := [path for path, size in sizes.items() if len(set(size)) > 1]:
        raise Unfit(f"it is about square images, and {uneven[0]} gets {list(sizes[uneven[0]])}")
    norms = {path: _norm(layer, sizes.get(path, ())) for path, layer in layers.items()}
    return sizes, max(longest), torch.cat(margins), norms


def _length(inputs: Tensor) -> float:
    return float(inputs.double().flatten(1).norm(dim=1).max())


def _norm(layer: nn.Module, size: tuple[int, ...]) -> Bracket:
    """The norm of a layer as a map: of a convolution with its padding, between bounds."""
    if isinstance(layer, nn.Linear):
        return Bracket(*[float(torch.linalg.matrix_norm(layer.weight.double(), 2))] * 2)
    return lanczos.largest(Operator.of(layer, size))
