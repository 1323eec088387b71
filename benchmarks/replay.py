"""The exact engine against the tuned loop that one would write by hand (B1), on maps of several networks; same error counts.

Both have the same batches, of a size and in the memory format that suit the loop; both draw the values they put in, and evaluate
the unmodified network too. Ours has its probe, its checks, its intervals and its table in it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import layerscope as ls
from benchmarks.data import cifar_or_like
from benchmarks.frame import Result, ratio, seconds
from layerscope.analyses.bench import Slice, further_share
from layerscope.analyses.robustness import engine_of, subject_of
from layerscope.engine.batches import outputs_of
from layerscope.engine.flops import counted
from layerscope.engine.task import Task
from layerscope.models import build
from layerscope.models.initialisers import Laws, initialise
from layerscope.perturb import World

GOAL, SHARE = 1.7, 0.85
"""So many times faster, and so much of what the FLOPs from the first use of a changed value on allow."""
BATCHES = 10
FORMATS = (torch.contiguous_format, torch.channels_last)


@dataclass(frozen=True)
class Map:
    """Every so many layers of a network (of each stretch the middle one), so many draws of each, on `BATCHES` batches of so many
    pictures."""

    network: str
    batch: int
    draws: int
    every: int = 1


MAPS = (
    Map("fcn-3x256", 240, 16),
    Map("vgg-16?width=0.125&hidden=128", 64, 6, every=2),
    Map("resnet-v1-18?width=0.125", 32, 6, every=3),
    Map("resnet-v1-56?width=0.25", 32, 4, every=8),
    Map("transformer-6x64", 24, 4, every=5),
)
"""Narrow, and of deep networks some layers from the first to the last: a row takes about a minute. A real map has more layers,
changes of each and batches, so that what is done once is a smaller share of it."""


def run() -> Iterator[Result]:
    data, name = cifar_or_like()
    splits = data.test, data.train
    inputs, targets = torch.cat([split.inputs for split in splits]), torch.cat([split.targets for split in splits])
    for one in MAPS:
        n = BATCHES * one.batch
        yield measured(one, inputs[:n], targets[:n], name)


def measured(one: Map, inputs: Tensor, targets: Tensor, data: str) -> Result:
    model = build(one.network, tuple(inputs.shape[1:]), 10).eval()
    laws = ls.laws_of(model, "he")
    initialise(model, laws, seed=0)
    memory_format = fastest(model, inputs[: one.batch])
    model, inputs = model.to(memory_format=memory_format), inputs.contiguous(memory_format=memory_format)
    batches = list(zip(inputs.split(one.batch), targets.split(one.batch), strict=True))
    trajectory = ls.Trajectory.of(final=ls.state_of(model))
    world = World.of(model, trajectory, laws)
    parts = [part for part in ls.Partition.by_layer(model) if not world.is_constant(part)]
    some = parts[one.every // 2 :: one.every]
    drawn = [ls.Variant.of(part, ls.Rerandomize(), draw=k, buffers="keep") for part in some for k in range(one.draws)]
    variants = [ls.Variant(), *drawn]
    found: dict[str, list[int]] = {}

    def ours() -> None:
        table = ls.evaluate(model, trajectory, variants, batches, [ls.ErrorRate()], laws=laws)
        found["ours"] = [round(value * len(targets)) for value in table.where(metric="error")["value"]]

    def loop() -> None:
        values = ({where.tensor: new for where, new in v.patch(world).slices.items()} for v in variants)
        found["loop"] = tuned_loop(model, values, batches)

    a, b, _ = ratio(ours, loop)
    assert found["ours"] == found["loop"]
    executed, bound = work(model, trajectory, laws, variants, batches)
    faster = b / a
    layers = f"{len(some)} of {len(parts)} layers" if one.every > 1 else f"{len(parts)} layers"
    how = ", channels last" if memory_format is torch.channels_last else ""
    return Result(
        f"exact engine: map of {one.network} on {data}: {layers} x {one.draws} draws, {BATCHES} batches of {one.batch}{how}",
        f"{a:.2f} s, {faster:.2f}x, {faster / bound:.0%} of the bound {bound:.2f}x; FLOPs after the first batch "
        f"{executed:.0%} of all; same counts",
        f"tuned loop {b:.2f} s",
        f">= {min(GOAL, SHARE * bound):.2f}x",
        faster >= min(GOAL, SHARE * bound),
    )


@torch.no_grad()
def fastest(model: nn.Module, inputs: Tensor) -> torch.memory_format:
    """The memory format in which a forward takes the least time."""

    def least(memory_format: torch.memory_format) -> float:
        network, given = model.to(memory_format=memory_format), inputs.contiguous(memory_format=memory_format)
        return min(seconds(lambda: network(given)) for _ in range(7))

    return min(FORMATS, key=least)


@torch.inference_mode()
def tuned_loop(
    model: nn.Module, values: Iterable[dict[str, Tensor]], batches: list[tuple[Tensor, Tensor]]
) -> list[int]:
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
    how many times less there could be, were nothing executed but the unmodified network once and what comes from the changed
    layers on."""
    task = Task(batches, [ls.ErrorRate()])
    some = Slice.of(subject_of(model, trajectory, laws, 0, outputs_of, None), variants, task)
    parts, compute = (some.first, some), engine_of(ls.Plan())
    executed = [counted(partial(part.run, compute))[1] for part in parts]
    all_ = some.work
    return further_share(executed, [part.work.whole for part in parts]), all_.whole / (
        all_.needed + all_.whole / len(variants)
    )
