"""Densely connected networks, `densenet-121`: each layer takes what all layers before it in its block give."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from layerscope.errors import UseError
from layerscope.models.pieces import (
    Modules,
    Norm,
    Stem,
    Steps,
    convolution,
    head_of,
    image_channels,
    is_large,
    normed,
    scaled,
    stem_of,
)

LAYERS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}
"""Depth -> layers of each block."""


def densenet(
    depth: int,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    norm: Norm = "batch",
    width: float = 1.0,
    stem: Stem = "auto",
) -> nn.Module:
    """Densely connected, four blocks of pre-activated layers of 1x1 and 3x3 convolutions; depth 121, 169 or 201.

    Inputs `[n, channels, height, width]`, outputs `[n, classes]`. Modules: stage0, block1.layer1, block1.layer2, ...,
    transition1, block2.layer1, ..., final_norm, final_linear. Each layer adds 32 channels (the growth rate) to the 64 of stage0,
    both times `width`; its 1x1 convolution has four times as many. A transition halves channels, height and width.

    `norm`: batch, or none (then convolutions have biases). `stem`: imagenet is a 7x7 convolution and a 3x3 max pooling of stride
    2 each, cifar a 3x3 convolution of stride 1; auto: imagenet from a height of 96 on.

    Source: Huang et al. 2017, Table 1 (DenseNet-BC). Differences: their own networks for CIFAR are others, of three blocks;
    these with a cifar stem are those that chatterji2020, App. C, seems to mean.
    """
    if depth not in LAYERS:
        raise UseError(f"depth is one of {', '.join(map(str, LAYERS))}, not {depth}")
    _check_size(stem, input_shape)
    channels, growth = scaled(64, width), scaled(32, width)
    modules = stem_of(stem, input_shape, channels, norm)
    for number, layers in enumerate(LAYERS[depth], start=1):
        modules[f"block{number}"] = nn.Sequential(_block(layers, channels, growth, norm))
        channels += layers * growth
        if number < len(LAYERS[depth]):
            modules[f"transition{number}"] = _transition(channels, norm)
            channels //= 2
    modules |= normed("final_norm", norm, channels)
    modules["final_relu"] = nn.ReLU()
    return Steps(modules | head_of(channels, classes, norm))


class DenseLayer(Steps):
    """What it is given and what its branch makes of it, as channels side by side."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, super().forward(x)), dim=1)


def _block(layers: int, channels: int, growth: int, norm: str) -> Modules:
    modules: Modules = OrderedDict()
    for number in range(layers):
        inner = _preactivated(channels + number * growth, 4 * growth, 1, norm, "1")
        outer = _preactivated(4 * growth, growth, 3, norm, "2")
        modules[f"layer{number + 1}"] = DenseLayer(inner | outer)
    return modules


def _transition(channels: int, norm: str) -> Steps:
    return Steps(_preactivated(channels, channels // 2, 1, norm) | OrderedDict(pool=nn.AvgPool2d(2)))


def _preactivated(fan_in: int, fan_out: int, size: int, norm: str, number: str = "") -> Modules:
    modules = normed(f"norm{number}", norm, fan_in)
    modules[f"relu{number}"] = nn.ReLU()
    modules[f"conv{number}"] = convolution(fan_in, fan_out, size, 1, norm)
    return modules


def _check_size(stem: Stem, input_shape: tuple[int, ...]) -> None:
    image_channels(input_shape)
    least = 29 if is_large(stem, input_shape) else 8  # three transitions halve what is left of it
    if min(input_shape[1:]) < least:
        raise UseError(f"images must be at least {least} pixels high and wide with this stem")
