"""How far a Part's values are from others."""

import math
from collections.abc import Iterable
from typing import Any

from layerscope.state import State


def distances(a: State, b: State, names: Iterable[str]) -> list[dict[str, Any]]:
    """Two rows: the 2-norm of a - b over the named tensors together, divided by the square root of the number of entries,
    and the largest absolute entry. Both in units of a parameter; computed in float64. Buffers of integers do not count.

    Source: zhang2022, Sec. 3.1 and App. D.
    """
    squares, largest, count = 0.0, 0.0, 0
    for name in names:
        if a[name].is_floating_point():
            difference = a[name].double() - b[name].double()
            squares += float(difference.square().sum())
            largest = max(largest, float(difference.abs().max())) if difference.numel() else largest
            count += difference.numel()
    common = {"unit": "parameter units", "n": count}
    return [
        {"metric": "distance_l2", "value": math.sqrt(squares / count) if count else math.nan, **common},
        {"metric": "distance_max", "value": largest if count else math.nan, **common},
    ]
