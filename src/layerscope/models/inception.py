"""Inception-v3, `inception-v3`: blocks of parallel branches of convolutions of several sizes."""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layerscope.errors import UseError
from layerscope.models.pieces import Modules, Steps, head_of, image_channels, scaled


def inception(
    input_shape: tuple[int, ...], classes: int, *, width: float = 1.0, mixed2: float = 1.0, momentum: float = 0.1
) -> nn.Module:
    """Inception-v3: five convolutions, then 11 blocks of parallel branches; batch norm after each convolution.

    Inputs `[n, channels, height, width]` of at least 75 pixels (published: 299), outputs `[n, classes]`. Modules: conv1 .. conv5,
    mixed0 .. mixed10, final_linear. `width` times all channels; `mixed2` times the channels that the block mixed2 gives only
    (35x35x288 for images of 299 pixels), which the last convolution of each of its branches makes.

    Batch norm has epsilon 0.001. `momentum` is that of its running statistics in PyTorch's sense: 0.0003 is the "0.9997 decay" of
    casper2019, with which they forget their start only after some 10,000 steps; the default is PyTorch's.

    Source: Szegedy et al. 2016, Table 1, Fig. 5 - 7 and 10, with the sizes of the code they published; casper2019, App. A
    (mixed2, batch norm). Differences: no auxiliary classifier, which only helps training and has no part in what the network
    computes; no dropout before the final layer.
    """
    _check(input_shape, mixed2, momentum)
    make = Maker(width, momentum)
    channels, modules = make.steps(image_channels(input_shape), STEM)
    for number, branches in enumerate(_blocks(mixed2)):
        channels, modules[f"mixed{number}"] = make.mixed(channels, branches)
    return Steps(modules | head_of(channels, classes, "none"))


class Mixed(nn.Module):
    """What its children make of the same inputs, as channels side by side."""

    def __init__(self, branches: Modules) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


@dataclass(frozen=True)
class Conv:
    """A convolution in a table; one that pads keeps the size of images."""

    channels: int
    size: int | tuple[int, int] = 1
    stride: int = 1
    pads: bool = True


@dataclass(frozen=True)
class Fork:
    """The end of a branch that is two convolutions side by side."""

    a: Conv
    b: Conv


@dataclass(frozen=True)
class Pool:
    """A pooling over 3x3: the mean, which keeps the size of images, or the maximum, with stride 2."""

    mean: bool


Step = Conv | Fork | Pool
Branches = Mapping[str, Sequence[Step]]

MEAN, MAX = Pool(mean=True), Pool(mean=False)
STEM = {
    "conv1": Conv(32, 3, stride=2, pads=False),
    "conv2": Conv(32, 3, pads=False),
    "conv3": Conv(64, 3),
    "pool3": MAX,
    "conv4": Conv(80),
    "conv5": Conv(192, 3, pads=False),
    "pool5": MAX,
}


def _blocks(mixed2: float) -> list[Branches]:
    """The branches of mixed0, mixed1, ..."""
    square, tall = [_square(32), _square(64), _square(64, mixed2)], [_tall(inner) for inner in (128, 160, 160, 192)]
    return [*square, SQUARE_HALVED, *tall, TALL_HALVED, SPLIT, SPLIT]


def _square(pooled: int, last: float = 1.0) -> Branches:
    """Szegedy et al. 2016, Fig. 5, with one 5x5 kept."""
    return {
        "branch1x1": [Conv(scaled(64, last))],
        "branch5x5": [Conv(48), Conv(scaled(64, last), 5)],
        "branch3x3": [Conv(64), Conv(96, 3), Conv(scaled(96, last), 3)],
        "branch_pool": [MEAN, Conv(scaled(pooled, last))],
    }


def _tall(inner: int) -> Branches:
    """There, Fig. 6, with n = 7."""
    return {
        "branch1x1": [Conv(192)],
        "branch7x7": [Conv(inner), Conv(inner, (1, 7)), Conv(192, (7, 1))],
        "branch7x7_twice": [Conv(inner), *[Conv(inner, size) for size in ((7, 1), (1, 7), (7, 1))], Conv(192, (1, 7))],
        "branch_pool": [MEAN, Conv(192)],
    }


# There, Fig. 10: blocks that halve height and width; and Fig. 7.
SQUARE_HALVED: Branches = {
    "branch3x3": [Conv(384, 3, stride=2, pads=False)],
    "branch3x3_twice": [Conv(64), Conv(96, 3), Conv(96, 3, stride=2, pads=False)],
    "branch_pool": [MAX],
}
TALL_HALVED: Branches = {
    "branch3x3": [Conv(192), Conv(320, 3, stride=2, pads=False)],
    "branch7x7": [Conv(192), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, 3, stride=2, pads=False)],
    "branch_pool": [MAX],
}
SPLIT: Branches = {
    "branch1x1": [Conv(320)],
    "branch3x3": [Conv(384), Fork(Conv(384, (1, 3)), Conv(384, (3, 1)))],
    "branch3x3_twice": [Conv(448), Conv(384, 3), Fork(Conv(384, (1, 3)), Conv(384, (3, 1)))],
    "branch_pool": [MEAN, Conv(192)],
}


@dataclass(frozen=True)
class Maker:
    """Makes modules of what the tables say; each answer begins with the number of channels that the module gives."""

    width: float
    momentum: float

    def mixed(self, fan_in: int, branches: Branches) -> tuple[int, Mixed]:
        made = {name: self.branch(fan_in, steps) for name, steps in branches.items()}
        modules: Modules = OrderedDict((name, module) for name, (_, module) in made.items())
        return sum(channels for channels, _ in made.values()), Mixed(modules)

    def branch(self, fan_in: int, steps: Sequence[Step]) -> tuple[int, Steps]:
        names = [f"{type(step).__name__.lower()}{number}" for number, step in enumerate(steps, start=1)]
        channels, modules = self.steps(fan_in, dict(zip(names, steps, strict=True)))
        return channels, Steps(modules)

    def steps(self, channels: int, steps: Mapping[str, Step]) -> tuple[int, Modules]:
        modules: Modules = OrderedDict()
        for name, step in steps.items():
            channels, modules[name] = self.step(channels, step)
        return channels, modules

    def step(self, fan_in: int, step: Step) -> tuple[int, nn.Module]:
        if isinstance(step, Fork):
            return self.mixed(fan_in, {"a": [step.a], "b": [step.b]})
        if isinstance(step, Pool):
            return fan_in, nn.AvgPool2d(3, stride=1, padding=1) if step.mean else nn.MaxPool2d(3, stride=2)
        return self.convolution(fan_in, step)

    def convolution(self, fan_in: int, step: Conv) -> tuple[int, Steps]:
        channels = scaled(step.channels, self.width)
        padding = "same" if step.pads else "valid"
        conv = nn.Conv2d(fan_in, channels, step.size, step.stride, padding, bias=False)
        norm = nn.BatchNorm2d(channels, eps=0.001, momentum=self.momentum)
        return channels, Steps(OrderedDict(conv=conv, norm=norm, relu=nn.ReLU()))


def _check(input_shape: tuple[int, ...], mixed2: float, momentum: float) -> None:
    image_channels(input_shape)
    if min(input_shape[1:]) < 75:
        raise UseError("images must be at least 75 pixels high and wide")
    if not 0 < mixed2 < math.inf:
        raise UseError(f"mixed2 is a factor above 0, not {mixed2}")
    if not 0 < momentum <= 1:
        raise UseError(f"momentum is above 0 and at most 1, not {momentum}")
