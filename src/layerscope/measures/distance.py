"""How far a Part's values are from others."""

import math
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

K = TypeVar("K", bound=Hashable)

METRICS = ("distance_l2", "distance_max")
UNIT = "parameter units"
AT_ONCE = 1 << 18
"""Entries that are looked at together: their float64 copies are all the memory that this takes."""


def distances(a: Mapping[K, Tensor], b: Mapping[K, Tensor]) -> list[dict[str, Any]]:
    """Two rows: the 2-norm of a - b over all tensors of `a` together, divided by the square root of the number of entries,
    and the largest absolute entry. Both in units of a parameter; computed in float64. Tensors of integers do not count; a
    complex entry counts as two.

    Source: zhang2022, Sec. 3.1 and App. D.
    """
    squares, largest, count = 0.0, 0.0, 0
    for key in a:
        one, other = (torch.view_as_real(s[key]) if s[key].is_complex() else s[key] for s in (a, b))
        if one.is_floating_point():
            for x, y in zip(one.reshape(-1).split(AT_ONCE), other.reshape(-1).split(AT_ONCE), strict=True):
                difference = x.double().cpu() - y.double().cpu()
                squares += float(difference.square().sum())
                largest = max(largest, float(difference.abs().max())) if difference.numel() else largest
                count += difference.numel()
    common = {"unit": UNIT, "n": count}
    return [
        {"metric": "distance_l2", "value": math.sqrt(squares / count) if count else math.nan, **common},
        {"metric": "distance_max", "value": largest if count else math.nan, **common},
    ]
