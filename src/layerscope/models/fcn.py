"""Fully connected networks, `fcn-DxH` (D hidden layers of H units) or `fcn-H-H-...`, with ReLU, and a final linear layer."""

import math
from collections import OrderedDict
from itertools import pairwise

from torch import nn

from layerscope.errors import UseError
from layerscope.models import pieces
from layerscope.models.pieces import Norm, scaled


def fcn(
    sizes: str | int,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    norm: Norm = "none",
    width: float = 1.0,
    dropout: float = 0.0,
    bias: bool = True,
) -> nn.Module:
    """Fully connected: D hidden layers of H units with ReLU, then a linear layer.

    Its layers are layer1 .. layer(D+1). Inputs `[n, *input_shape]`, outputs `[n, classes]`. `sizes` is `DxH` or the hidden sizes
    joined by `-`, each times `width`.
    Batch norm stands before a ReLU, dropout after it. Without `bias` linear layers have weights alone, as theorems about
    networks of linear maps ask for.

    Source: zhang2022, Sec. 3.1 and App. A; FCN I and II of chatterji2020, App. C, are fcn-5000-1000?norm=batch and
    fcn-10000-2000?norm=batch. The last layer is numbered like the others, as in the text of zhang2022's App. B.
    """
    hidden = [scaled(units, width) for units in _hidden(str(sizes))]
    widths = [math.prod(input_shape), *hidden, classes]
    modules: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
        modules[f"layer{number}"] = nn.Linear(fan_in, fan_out, bias=bias)
        if number <= len(hidden):
            if norm == "batch":
                modules[f"norm{number}"] = nn.BatchNorm1d(fan_out)
            modules[f"relu{number}"] = nn.ReLU()
            if dropout:
                modules[f"dropout{number}"] = pieces.dropped(dropout)
    return nn.Sequential(modules)


def _hidden(sizes: str) -> list[int]:
    depth, times, units = sizes.partition("x")
    hidden = [int(units)] * int(depth) if times else list(map(int, sizes.split("-")))
    if not hidden or min(hidden) < 1:
        raise UseError("a network has at least one hidden layer, and each at least one unit")
    return hidden
