"""How a matrix of weights stretches space: its singular values in three numbers."""

import math
from typing import Any

import torch
from torch import Tensor

from layerscope.measures.distance import UNIT

METRICS = ("spectrum_largest", "spectrum_stable_rank", "spectrum_effective")


def matrix(tensor: Tensor) -> Tensor | None:
    """A weight as a matrix: its first axis x all others, which of a convolution is outputs x (inputs x kernel). None for
    vectors, scalars, and what has no entries or is no number with a fraction."""
    floating = tensor.is_floating_point() or tensor.is_complex()
    return tensor.flatten(1) if tensor.dim() > 1 and tensor.numel() and floating else None


def spectrum(tensor: Tensor) -> list[dict[str, Any]]:
    """Three rows about the singular values s of `matrix(tensor)`: the largest; the stable rank, sum(s^2) / max(s)^2; the
    effective number of them, exp of the entropy of s / sum(s). The last two lie between 1 and the smaller side `n`, and have
    a status where all values are 0. Nothing for what is no matrix. Computed in float64.

    Of a convolution this is not the norm of the map from image to image, which depends on the size of the image and on how
    kernels overlap: it says how the kernels differ.
    Source: Roy and Vetterli, The effective rank, 2007 (the effective number); Rudelson and Vershynin, Sampling from
    large matrices, 2007 (the stable rank).
    """
    if (found := matrix(tensor)) is None:
        return []
    values = torch.linalg.svdvals(found.to(torch.complex128 if found.is_complex() else torch.float64).cpu())
    n, largest = len(values), float(values[0])
    first = {"metric": METRICS[0], "value": largest, "unit": UNIT, "n": n, "status": "ok"}
    if not largest > 0:
        none = {"status": "not applicable", "reason": "all its values are 0"}
        return [first, *({"metric": name, "unit": "", "n": n, **none} for name in METRICS[1:])]
    stable = float((values / largest).square().sum())
    share = values / values.sum()
    effective = math.exp(-float(torch.xlogy(share, share).sum()))
    ranks = zip(METRICS[1:], (stable, effective), strict=True)
    return [first, *({"metric": name, "value": v, "unit": "", "n": n, "status": "ok"} for name, v in ranks)]
