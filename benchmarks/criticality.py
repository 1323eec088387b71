"""G3: the criticality of all modules by few samples, against the full grid on a tuned loop (B3).

The grid has 11 places on the way x 11 standard deviations x 10 draws, each on all samples; all take the same time, so that some
are timed and the rest are reckoned. How well the values agree is measured where the whole grid can be run: on fewer samples, for
several eps.
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import layerscope as ls
from benchmarks.data import mnist_or_like
from benchmarks.frame import Result, seconds
from benchmarks.replay import wrong
from layerscope.models import build

SAMPLES, FEWER = 10_000, 1_000
CELLS = 121
DRAWS = 10
SURE = 40
"""Draws of the grid that answers are compared with: those of ten are up to 0.9 steps apart among themselves."""
REPEATS = 3
EPS = (0.05, 0.1, 0.2, 0.3, 0.5)
SIZES = (250, 500, 1000, 2500, 10_000)
PASSES, TIME, AGREE = 100, 50, 0.95


def run() -> Iterator[Result]:
    data, name = mnist_or_like()
    x, y = data.train.inputs[:SAMPLES], data.train.targets[:SAMPLES]
    for network, model in (("fcn-3x256", build("fcn-3x256", tuple(x.shape[1:]), 10)), ("small conv net", small())):
        start = ls.state_of(model)
        train(model, x, y)
        trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(model))
        yield fast(network, name, model, trajectory, x, y)
        yield right(network, name, model, trajectory, x[:FEWER], y[:FEWER])


def small() -> nn.Module:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 32)):
        parts += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(512, 10))


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int = 3, lr: float = 0.1, batch_size: int = 128) -> None:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    model.eval()


def fast(network: str, data: str, model: nn.Module, trajectory: ls.Trajectory, x: Tensor, y: Tensor) -> Result:
    size = min(
        SIZES,
        key=lambda size: min(seconds(lambda: loop(model, trajectory, 0, [(1.0, 0.1)], x, y, size)) for _ in range(3)),
    )
    batches = list(zip(x.split(size), y.split(size), strict=True))
    parts = ls.Partition.by_layer(model)
    found: list[ls.Table] = []

    def ours() -> None:
        found.append(ls.criticality(model, trajectory, batches, eps=0.1))

    def theirs() -> None:
        for at in range(len(parts)):
            loop(model, trajectory, at, [(1.0, 0.1), (0.5, 0.01)], x, y, size)

    _ = ours(), theirs()
    a, b = (
        statistics.median(column)
        for column in zip(*((seconds(ours), seconds(theirs)) for _ in range(REPEATS)), strict=True)
    )
    b *= CELLS * DRAWS / 2
    whole = found[0].where(metric="criticality", part="whole network").iloc[0]
    fewer, faster = len(parts) * CELLS * DRAWS * len(x) / whole["passes"], b / a
    return Result(
        f"criticality of {network}'s {len(parts)} modules, {data}, {len(x):,} samples",
        f"{a:.2f} s, {faster:.0f}x; {fewer:.0f}x fewer sample passes",
        f"full grid on a tuned loop, batches of {size}: {b:.0f} s (2 of {CELLS * DRAWS} passes a module timed)",
        f">= {TIME}x, {PASSES}x",
        faster >= TIME and fewer >= PASSES,
        REPEATS,
    )


def right(network: str, data: str, model: nn.Module, trajectory: ls.Trajectory, x: Tensor, y: Tensor) -> Result:
    """Steps of sigma's grid between the fast search and the whole grid of the exact engine, module by module."""
    spec = ls.CriticalitySpec(eps=EPS, draws=SURE)
    few, all_ = (
        ls.criticality(model, trajectory, [(x, y)], spec=replace(spec, search=search))
        .where(metric="criticality")
        .to_dict("records")
        for search in ("sequential", "grid")
    )
    pairs = [(a, b) for a, b in zip(few, all_, strict=True) if a["part"] != "whole network"]
    steps = [apart(a, b, spec) for a, b in pairs]
    near = sum(step <= 1.001 for step in steps)
    return Result(
        f"criticality of {network} as the grid has it: {len(steps)} modules x eps, {data}, {len(x):,} samples",
        f"{near} within a step, {sum(step < 0.01 for step in steps)} equal, at most {max(steps):.1f} steps apart",
        f"the same grid whole, {SURE} draws on all samples, exact engine",
        f">= {AGREE:.0%} within one, none beyond two",
        near >= AGREE * len(steps) and max(steps) <= 2.001,
        1,
    )


def apart(a: dict[Any, Any], b: dict[Any, Any], spec: ls.CriticalitySpec) -> float:
    """Steps of the grid between two answers: of sigma, which is what values differ by; of alpha, if one value is zero; infinitely
    many if one of them is none."""
    if "infeasible" in (a["status"], b["status"]):
        return 0.0 if a["status"] == b["status"] else math.inf
    if 0 in (a["value"], b["value"]):
        return abs(spec.alphas.index(a["alpha"]) - spec.alphas.index(b["alpha"]))
    return abs(math.log(a["value"] / b["value"])) / (2 * math.log(spec.sigmas[1] / spec.sigmas[0]))


@torch.inference_mode()
def loop(
    model: nn.Module,
    trajectory: ls.Trajectory,
    at: int,
    cells: list[tuple[float, float]],
    x: Tensor,
    y: Tensor,
    size: int,
) -> list[int]:
    """Counts of errors of module `at`, a draw a cell: values written in place, noise drawn in place, batches as they lie in
    memory."""
    own = dict(model.named_parameters())
    names = [name for name in list(ls.Partition.by_layer(model))[at].tensors if name in own]
    start, end = (trajectory.tensors(step, names) for step in (ls.INIT, ls.FINAL))
    counts = []
    for alpha, sigma in cells:
        for name in names:
            own[name].normal_().mul_(sigma).add_(start[name].lerp(end[name], alpha))
        counts.append(sum(int(wrong(model(a), b)) for a, b in zip(x.split(size), y.split(size), strict=True)))
    for name in names:
        own[name].copy_(end[name])
    return counts
