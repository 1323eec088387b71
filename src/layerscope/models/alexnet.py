"""A scaled-down AlexNet for pictures of CIFAR-10's size, `alexnet-small`."""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from layerscope.errors import UseError
from layerscope.models import pieces
from layerscope.models.pieces import dense_layers, scaled


def alexnet(
    input_shape: tuple[int, ...], classes: int, *, width: float = 1.0, dropout: float = 0.0, lrn: bool = True
) -> nn.Module:
    """Scaled-down AlexNet for small pictures: conv1, conv2 (5x5), dense1, dense2, final_linear.

    Inputs `[n, channels, height, width]`, outputs `[n, classes]`. 96 and 256 filters, 384 and 192 units, each times `width`.
    After each convolution: ReLU, 3x3 max pooling of stride 2, and with `lrn` local response normalisation,
    x_c / (1 + 2e-5 * sum of the squares of the channels c-2 .. c+2) ** 0.75. Dropout stands after the ReLU of a dense layer.

    Source: casper2019, App. A, "AlexNets"; it cites Zhang et al. 2016 (arXiv 1611.03530) for the form.

    Differs from the paper: it does not say how borders are treated. Here convolutions keep the size and pooling halves it,
    rounded down, as in Zhang et al.: their 1,387,786 parameters (Table 1) fit twice 64 filters and 28 pixels that become 7.
    """
    filters = [scaled(units, width) for units in (96, 256)]
    sides = _pooled_sides(input_shape)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (fan_in, fan_out) in enumerate(pairwise([input_shape[0], *filters]), start=1):
        modules[f"conv{number}"] = nn.Conv2d(fan_in, fan_out, 5, padding=2)
        modules[f"relu{number}"] = nn.ReLU()
        modules[f"pool{number}"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        if lrn:  # alpha is divided by the 5 channels in PyTorch, not in the paper
            modules[f"lrn{number}"] = nn.LocalResponseNorm(5, alpha=5 * 2e-5, beta=0.75, k=1.0)
    modules["flatten"] = nn.Flatten()
    units = [filters[-1] * sides[0] * sides[1], scaled(384, width), scaled(192, width), classes]
    return nn.Sequential(modules | dense_layers(units, 3, dropout))


def _pooled_sides(input_shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width after both poolings."""
    pieces.image_channels(input_shape)
    _, height, width = input_shape
    if min(height, width) < 4:
        raise UseError("its pictures have at least 4 x 4 pixels: both poolings halve them")
    return height // 2 // 2, width // 2 // 2
