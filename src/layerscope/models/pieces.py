"""Pieces that several architectures share."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from layerscope.errors import UseError
from layerscope.models.laws import Law

Modules = OrderedDict[str, nn.Module]
Stem = Literal["auto", "cifar", "imagenet"]
Norm = Literal["none", "batch"]
"""Normalisation after (or, in ResNet V2, before) each linear map."""


def scaled(units: int, width: float) -> int:
    """A number of units or channels times a size factor: at least 1."""
    if not 0 < width < math.inf:
        raise UseError(f"width is a factor above 0, not {width}")
    return max(1, round(units * width))


def image_channels(input_shape: tuple[int, ...]) -> int:
    """Channels of inputs that must be images, `[channels, height, width]`."""
    if len(input_shape) != 3:
        raise UseError("it takes images, [channels, height, width]")
    return input_shape[0]


def dropped(rate: float) -> nn.Module:
    """Dropout with this share set to zero, or nothing."""
    if not 0 <= rate < 1:
        raise UseError(f"dropout is a share in [0, 1), not {rate}")
    return nn.Dropout(rate) if rate else nn.Identity()


def dense_layers(units: Sequence[int], first: int, dropout: float) -> OrderedDict[str, nn.Module]:
    """dense1, dense2, ... with ReLU (numbered from `first` on) and dropout, then final_linear; `units` begins with the inputs."""
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (fan_in, fan_out) in enumerate(pairwise(units[:-1]), start=1):
        modules[f"dense{number}"] = nn.Linear(fan_in, fan_out)
        modules[f"relu{first + number - 1}"] = nn.ReLU()
        if dropout:
            modules[f"dropout{number}"] = dropped(dropout)
    modules["final_linear"] = nn.Linear(units[-2], units[-1])
    return modules


class Steps(nn.Module):
    """Its children, one after another.

    Not an `nn.Sequential`, whose children `Partition.by_block` takes as separate: a convolution with its norm is one block. As
    a block is of a class that occurs twice, whole networks are of this class too.
    """

    def __init__(self, modules: Modules) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


class Bias(nn.Module):
    """Adds one number to everything."""

    initial_laws: ClassVar[dict[str, Law]] = {"bias": Law("constant", 0.0)}

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class Scalar(nn.Module):
    """Multiplies everything by one number."""

    initial_laws: ClassVar[dict[str, Law]] = {"scale": Law("constant", 1.0)}

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def stem_of(kind: Stem, input_shape: tuple[int, ...], channels: int, norm: str, preactivated: bool = False) -> Modules:
    """stage0, then ReLU (unless what follows starts with it) and, for ImageNet, max pooling."""
    colours = image_channels(input_shape)
    large = is_large(kind, input_shape)
    conv = convolution(colours, channels, 7 if large else 3, 2 if large else 1, norm)
    modules: Modules = OrderedDict(stage0=conv)
    if not preactivated:
        modules = OrderedDict(stage0=with_norm(conv, norm), relu0=nn.ReLU())
    if large:
        modules["pool0"] = nn.MaxPool2d(3, stride=2, padding=1)
    return modules


def is_large(kind: Stem, input_shape: tuple[int, ...]) -> bool:
    """Whether a network starts as for ImageNet."""
    return kind == "imagenet" or (kind == "auto" and input_shape[1] >= 96)


def convolution(fan_in: int, fan_out: int, size: int, stride: int, norm: str) -> nn.Conv2d:
    """A convolution that keeps the size of images but for the stride."""
    return nn.Conv2d(fan_in, fan_out, size, stride, padding=size // 2, bias=norm == "none")


def with_norm(conv: nn.Conv2d, norm: str) -> nn.Module:
    """A convolution and its norm as one, or the bare convolution: a Part has the name of the module that owns its tensors."""
    return conv if norm == "none" else Steps(OrderedDict(conv=conv) | normed("norm", norm, conv.out_channels))


def normed(name: str, norm: str, channels: int) -> Modules:
    """The norm under this name, if there is one."""
    if norm == "none":
        return OrderedDict()
    return OrderedDict({name: nn.BatchNorm2d(channels) if norm == "batch" else Bias()})


def head_of(channels: int, classes: int, norm: str) -> Modules:
    """The mean of each channel and the final linear layer."""
    modules: Modules = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    if norm == "scalar":
        modules["final_bias"] = Bias()
    modules["final_linear"] = nn.Linear(channels, classes)
    return modules
