"""Architectures by name. Each is one file here and one row in `FAMILIES`."""

import re
from collections.abc import Callable

from torch import nn

from layerscope.errors import unknown
from layerscope.models.fcn import fcn

FAMILIES: dict[str, tuple[re.Pattern[str], str, Callable[..., nn.Module]]] = {
    "fcn": (re.compile(r"fcn-(\d+)x(\d+)"), "fcn-3x256", fcn),
}
"""Family -> (pattern of names whose groups are integers, an example, builder of the network)."""


def build(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of a name such as `fcn-3x256`, for inputs of a shape and a number of classes.

    Its values are PyTorch's defaults; `initialise` sets them to draws from stated laws.
    """
    for pattern, _, builder in FAMILIES.values():
        match = pattern.fullmatch(name)
        if match and all(int(number) > 0 for number in match.groups()):
            return builder(*map(int, match.groups()), input_shape, classes)
    examples = [example for _, example, _ in FAMILIES.values()]
    raise unknown("model", name, examples, "The form is fcn-DxH: D hidden layers of H units each.")
