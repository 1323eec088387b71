"""How large a Part's values are."""

import math
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from layerscope.measures.distance import AT_ONCE, UNIT

K = TypeVar("K", bound=Hashable)

METRICS = ("norm_frobenius", "norm_rms")


def norms(tensors: Mapping[K, Tensor]) -> list[dict[str, Any]]:
    """Two rows: the Frobenius norm (2-norm) of all tensors together, and the root mean square of their entries, which is that
    norm divided by the square root of their number. Both in units of a parameter; computed in float64. Tensors of integers
    do not count; a complex entry counts as two.
    """
    squares, count = 0.0, 0
    for tensor in (torch.view_as_real(t) if t.is_complex() else t for t in tensors.values()):
        if tensor.is_floating_point():
            squares += sum(float(some.double().square().sum()) for some in tensor.reshape(-1).split(AT_ONCE))
            count += tensor.numel()
    values = (math.sqrt(squares), math.sqrt(squares / count)) if count else (math.nan, math.nan)
    return [{"metric": name, "value": v, "unit": UNIT, "n": count} for name, v in zip(METRICS, values, strict=True)]
