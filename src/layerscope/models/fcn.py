"""Fully connected networks, `fcn-DxH`: D hidden layers of H units with ReLU, and a final linear layer."""

import math
from collections import OrderedDict
from itertools import pairwise

from torch import nn


def fcn(depth: int, width: int, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """FCN DxH: layer1 .. layerD with ReLU, then a linear layer(D+1); inputs `[n, *input_shape]`, outputs `[n, classes]`.

    Source: zhang2022, Sec. 3.1 and App. A. The last layer is numbered like the others, as in the text of App. B.
    """
    sizes = [math.prod(input_shape), *[width] * depth, classes]
    modules: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
        modules[f"layer{number}"] = nn.Linear(fan_in, fan_out)
        if number <= depth:
            modules[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(modules)
