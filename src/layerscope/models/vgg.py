"""VGG, `vgg-11`, `vgg-13`, `vgg-16` and `vgg-19`: convolutions in five stages, then dense layers."""

from collections import OrderedDict
from collections.abc import Iterable

from torch import nn

from layerscope.errors import UseError
from layerscope.models import pieces
from layerscope.models.pieces import Norm, dense_layers, scaled

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Depth -> how many convolutions each stage has."""
CHANNELS = (64, 128, 256, 512, 512)
LARGE = 96
"""Pictures whose shorter side has this many pixels keep 7 x 7 positions for the dense layers; smaller ones are averaged to 1."""


def vgg(
    depth: int,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    norm: Norm = "none",
    width: float = 1.0,
    hidden: int = 4096,
    dropout: float = 0.0,
) -> nn.Module:
    """VGG, 3x3 convolutions with ReLU and max pooling: conv1 .. convN, dense1, dense2, final_linear.

    Inputs `[n, channels, height, width]`, outputs `[n, classes]`. `depth` counts the linear maps: 11, 13, 16 or 19. All
    channels and the `hidden` units of the two dense layers are times `width`. Batch norm stands between a convolution and its
    ReLU, dropout after the ReLU of a dense layer.

    Source: Simonyan & Zisserman 2015 (arXiv 1409.1556), Table 1, columns A, B, D and E; used in zhang2022, Sec. 3.2 and
    App. A and C (+bn: norm=batch), and chatterji2020, App. C.

    Differs from the paper: it trains with dropout=0.5 (zhang2022 and chatterji2020 mention none). Sides other than 224 are
    allowed: pooling rounds a side up, and the dense layers see the mean over 7 x 7 areas, or on pictures below 96 pixels over
    the whole area, which is 1 x 1 for CIFAR-10 (parameters as in chatterji2020, Table 2: 2.8e7 and 3.4e7).
    """
    if hidden < 1:
        raise UseError(f"hidden is a number of units, at least 1, not {hidden}")
    fan_in, channels = pieces.image_channels(input_shape), [scaled(units, width) for units in CHANNELS]
    side = 7 if min(input_shape[1:]) >= LARGE else 1
    units = [channels[-1] * side * side, *[scaled(hidden, width)] * 2, classes]
    modules = _features(fan_in, channels, CONVOLUTIONS[depth], norm)
    modules |= {"average": nn.AdaptiveAvgPool2d(side), "flatten": nn.Flatten()}
    return nn.Sequential(modules | dense_layers(units, depth - 2, dropout))


def _features(
    fan_in: int, channels: Iterable[int], convolutions: Iterable[int], norm: Norm
) -> OrderedDict[str, nn.Module]:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    number = 0
    for stage, (fan_out, repeats) in enumerate(zip(channels, convolutions, strict=True), start=1):
        for _ in range(repeats):
            number += 1
            modules[f"conv{number}"] = nn.Conv2d(fan_in, fan_out, 3, padding=1)
            if norm == "batch":
                modules[f"norm{number}"] = nn.BatchNorm2d(fan_out)
            modules[f"relu{number}"] = nn.ReLU()
            fan_in = fan_out
        modules[f"pool{stage}"] = nn.MaxPool2d(2, ceil_mode=True)
    return modules
