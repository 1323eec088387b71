"""A population trained as one stack against one network at a time (B4): an epoch of all members, nothing tested or kept."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import layerscope as ls
from benchmarks.data import cifar_or_like, mnist_or_like
from benchmarks.frame import Result, ratio
from layerscope.data import DataSet, Split
from layerscope.training.blocks import blocks_of_sets
from layerscope.training.loop import place, start
from layerscope.training.stacked import Stacked

LINEAR = {
    "fcn-4x8": (25, 10.0),
    "fcn-4x32": (25, 4.0),
    "fcn-4x64": (12, 0.95),
    "fcn-4x128": (6, 1.7),
    "fcn-4x256": (3, 0.95),
    "fcn-4x512": (2, 0.95),
}
"""Network on MNIST -> seeds, and how many times faster it should be at least."""
CONVOLUTIONAL = {"alexnet-small?width=0.03&lrn=no": (4, 0.95), "vgg-11?width=0.125&hidden=128": (2, 0.95)}
"""The same on CIFAR-10, where the goal of PERFORMANCE.md is of a GPU: here they must only not be slower."""
RATIOS = 5
"""Ratios of label noise, for each seed."""


def run() -> Iterator[Result]:
    data, name = mnist_or_like()
    for model, (seeds, goal) in LINEAR.items():
        yield measured(ls.TrainSpec(model=model), first(data, 2048), name, seeds, goal)
    data, name = cifar_or_like()
    for model, (seeds, goal) in CONVOLUTIONAL.items():
        yield measured(ls.TrainSpec(model=model, batch_size=32), first(data, 256), name, seeds, goal)


def first(data: DataSet, n: int) -> DataSet:
    """So many training images, and one to test on: nothing is tested here."""
    one = Split(data.test.inputs[:1], data.test.targets[:1])
    return replace(data, train=data.train.select(torch.arange(n)), test=one)


def measured(spec: ls.TrainSpec, data: DataSet, name: str, seeds: int, goal: float) -> Result:
    """Members that are trained alone are so on both sides."""
    sets = {str(i): replace(data, train=replace(data.train, targets=data.train.targets.roll(i))) for i in range(RATIOS)}
    specs = [replace(spec, epochs=1000, seed=seed, data=noise) for seed in range(seeds) for noise in sets]
    blocks = blocks_of_sets(specs, sets)
    stacks = [stack_of([specs[i] for i in block.members], sets) for block in blocks if not block.why]
    alone = [(network(specs[i], sets), sets[specs[i].data]) for block in blocks if block.why for i in block.members]
    networks = [(network(one, sets), sets[one.data]) for one in specs]
    epochs = iter(range(1, 1000))

    def ours() -> None:
        number = next(epochs)
        for stack in stacks:
            stack._pass(number)
        for model, its in alone:
            epoch_of(model, its, spec)

    def one_by_one() -> None:
        for model, its in networks:
            epoch_of(model, its, spec)

    a, b, _ = ratio(ours, one_by_one)
    how = f"in {len(stacks)} stack{'s' if len(stacks) > 1 else ''}" if stacks else f"one by one: {blocks[0].why}"
    return Result(
        f"an epoch of {len(specs)} networks {spec.model} ({RATIOS} ratios of label noise x {seeds} seeds), {name}, "
        f"{len(data.train)} images in batches of {spec.batch_size}",
        f"{a:.2f} s {how}, {b / a:.1f}x",
        f"one at a time {b:.2f} s",
        f">= {goal:g}x",
        b / a >= goal,
    )


def stack_of(specs: list[ls.TrainSpec], sets: dict[str, DataSet]) -> Stacked:
    return Stacked(specs, [start(spec, sets[spec.data]) for spec in specs], [sets[spec.data] for spec in specs])


def network(spec: ls.TrainSpec, sets: dict[str, DataSet]) -> nn.Module:
    """Laid out as it trains fastest alone."""
    model = start(spec, sets[spec.data])
    place(model, "cpu")
    return model


def epoch_of(model: nn.Module, data: DataSet, spec: ls.TrainSpec) -> None:
    """What one would write by hand: data in memory, the optimiser's foreach form."""
    inputs, targets = data.train.inputs, data.train.targets
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.lr, momentum=spec.momentum, foreach=True)
    for chosen in torch.randperm(len(targets)).split(spec.batch_size):
        loss = cross_entropy(model(inputs[chosen]), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
