"""The reference engine against a hand-written loop of the same forwards; ours has the probe and its passes in it."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import layerscope as ls
from benchmarks.data import mnist_or_like
from benchmarks.frame import Result, ratio
from layerscope.models import build

GOAL, REPEATS = 1.03, 7

Count = Callable[[Tensor, Tensor], list[Tensor]]


def errors(outputs: Tensor, targets: Tensor) -> list[Tensor]:
    return [outputs.argmax(1) != targets]


def errors_and_losses(outputs: Tensor, targets: Tensor) -> list[Tensor]:
    return [outputs.argmax(1) != targets, cross_entropy(outputs, targets, reduction="none")]


def conv() -> nn.Module:
    """A small convolutional net, as people have it: five convolutions with batch norm."""
    layers: list[nn.Module] = []
    for inside, outside, stride in ((1, 16, 1), (16, 16, 2), (16, 32, 1), (32, 32, 2), (32, 32, 1)):
        layers += [nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def run() -> list[Result]:
    data, name = mnist_or_like()
    few = [(x, y) for x, y in data.test.batches()][:4]
    cases = (
        ("fcn-3x256", build("fcn-3x256", data.input_shape, data.classes), list(data.test.batches()), 10),
        ("small conv net", conv(), few, 3),
    )
    metrics: tuple[tuple[str, Count, Callable[[], list[object]]], ...] = (
        ("error", errors, lambda: [ls.ErrorRate()]),
        ("error and loss", errors_and_losses, lambda: [ls.ErrorRate(), ls.CrossEntropy()]),
    )
    return [
        row(f"{what}, {named}", model, batches, times, count, make(), name)
        for what, model, batches, times in cases
        for named, count, make in metrics
    ]


def row(what: str, model: nn.Module, batches: list, times: int, count: Count, metrics: list, data: str) -> Result:
    final = {k: 1.1 * v if v.is_floating_point() else v for k, v in ls.state_of(model).items()}
    trajectory = ls.Trajectory.of(initial=ls.state_of(model), final=final)
    parts = [part for part in ls.Partition.by_layer(model) if "weight" in part.tensors[0]]
    variants = [ls.Variant.of(part, ls.Rewind(), buffers="keep") for part in parts] * times
    own = {name for name, _ in model.named_parameters()}

    def by_hand() -> None:
        """The unmodified network once, then each layer in turn: swap, keep what each sample gives, swap back."""
        network = copy.deepcopy(model).eval()
        with torch.inference_mode():
            network.load_state_dict(trajectory[ls.FINAL])
            places = dict(network.state_dict())
            for variant in (None, *variants):
                tensors = [name for name in variant.edits[0].part.tensors if name in own] if variant else []
                for tensor in tensors:
                    places[tensor].copy_(trajectory[ls.INIT][tensor])
                seen = [count(network(x), y) for x, y in batches]
                for column in zip(*seen, strict=True):
                    torch.cat(column).double().mean().item()
                for tensor in tensors:
                    places[tensor].copy_(trajectory[ls.FINAL][tensor])

    a, b, quotient = ratio(
        lambda: ls.evaluate(model, trajectory, variants, batches, metrics, plan=ls.Plan(engine="reference")),
        by_hand,
        repeats=REPEATS,
    )
    return Result(
        f"reference engine: {what}, {sum(len(y) for _, y in batches):,} samples ({data})",
        f"{a:.2f} s for {len(variants)} variants, ratio {quotient:.3f}",
        f"hand-written loop of the same forwards {b:.2f} s",
        f"<= {GOAL}x",
        quotient <= GOAL,
        REPEATS,
    )
