"""The exact engine against the tuned loop that one would write by hand (B1), on maps of several networks; same error counts.

Both have the same batches. Ours has its probe and its checks in it, which count for much on as few samples as these.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import layerscope as ls
from benchmarks.data import cifar_or_like
from benchmarks.frame import Result, ratio
from layerscope.analyses.bench import Slice, further_share
from layerscope.analyses.robustness import engine_of, subject_of
from layerscope.engine.batches import outputs_of
from layerscope.engine.flops import counted
from layerscope.engine.task import Task
from layerscope.models import build
from layerscope.models.initialisers import Laws, initialise
from layerscope.perturb import World

GOAL = 1.7
NETWORKS = {
    "fcn-3x256": (400, 80),
    "vgg-16?width=0.125&hidden=128": (160, 4),
    "resnet-v1-18?width=0.125": (160, 4),
    "resnet-v1-56?width=0.25": (80, 3),
    "transformer-6x64": (200, 4),
}
"""Network -> test images, draws of each layer. Narrow and few, as 2 cores ask for."""
BATCHES = 4


def run() -> Iterator[Result]:
    data, name = cifar_or_like()
    for network, (n, draws) in NETWORKS.items():
        yield measured(network, data.test.inputs[:n], data.test.targets[:n], draws, name)


def measured(name: str, inputs: Tensor, targets: Tensor, draws: int, data: str) -> Result:
    model = build(name, tuple(inputs.shape[1:]), 10).eval()
    laws = ls.laws_of(model, "he")
    initialise(model, laws, seed=0)
    world = World.of(model, ls.Trajectory.of(final=ls.state_of(model)), laws)
    parts = [part for part in ls.Partition.by_layer(model) if not world.is_constant(part)]
    variants = [ls.Variant.of(part, ls.Rerandomize(), draw=k, buffers="keep") for part in parts for k in range(draws)]
    size = len(inputs) // BATCHES
    batches = list(zip(inputs.split(size), targets.split(size), strict=True))
    trajectory = ls.Trajectory.of(final=ls.state_of(model))
    found: dict[str, list[int]] = {}

    def ours() -> None:
        table = ls.evaluate(model, trajectory, variants, batches, [ls.ErrorRate()], laws=laws)
        found["ours"] = [round(value * len(targets)) for value in table.where(metric="error")["value"]]

    values = [{where.tensor: new for where, new in variant.patch(world).slices.items()} for variant in variants]

    def loop() -> None:
        found["loop"] = tuned_loop(model, values, batches)

    a, b, _ = ratio(ours, loop)
    assert found["ours"] == found["loop"]
    executed, bound = work(model, trajectory, laws, variants, batches)
    return Result(
        f"map of {name} on {data}: {len(parts)} layers x {draws} draws, n = {len(targets)}, batches of {size}",
        f"{a:.2f} s, {b / a:.2f}x; FLOPs after the first batch {100 * executed:.0f} % of all, bound {bound:.2f}x; same counts",
        f"tuned loop {b:.2f} s",
        f">= {min(GOAL, 0.85 * bound):.2f}x",
        b / a >= min(GOAL, 0.85 * bound),
    )


@torch.inference_mode()
def tuned_loop(model: nn.Module, values: list[dict[str, Tensor]], batches: list[tuple[Tensor, Tensor]]) -> list[int]:
    """Data in memory, values copied in place and back, errors counted once a batch: what one writes by hand."""
    own = dict(model.state_dict())
    counts = []
    for changed in values:
        before = {name: own[name].clone() for name in changed}
        for name, value in changed.items():
            own[name].copy_(value)
        counts.append(sum(int(wrong(model(x), y)) for x, y in batches))
        for name, value in before.items():
            own[name].copy_(value)
    return counts


def wrong(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs < outputs.gather(1, targets[:, None])).sum(1) < outputs.shape[1] - 1).sum()


def work(
    model: nn.Module, trajectory: ls.Trajectory, laws: Laws, variants: list[ls.Variant], batches: list[Any]
) -> tuple[float, float]:
    """FLOPs executed as a share of those of all variants whole, but for the first batch, on which the engine checks itself; and
    how many times less there could be, were nothing executed but what comes from the changed layer on."""
    task = Task(batches, [ls.ErrorRate()])
    some = Slice.of(subject_of(model, trajectory, laws, 0, outputs_of, None), variants, task)
    parts, compute = (some.first, some), engine_of(ls.Plan())
    executed = [counted(partial(part.run, compute))[1] for part in parts]
    return further_share(executed, [part.work.whole for part in parts]), some.work.bound
