"""How a matrix of weights, or a layer, stretches space: its singular values in a few numbers."""

import math
from typing import Any

import torch
from torch import Tensor

from layerscope.errors import UseError
from layerscope.measures import lanczos
from layerscope.measures.circular import is_circular, largest_circular, singular_values, undivided
from layerscope.measures.distance import UNIT
from layerscope.measures.operator import Operator, frobenius

METRICS = ("spectrum_largest", "spectrum_stable_rank", "spectrum_effective")
OF_OPERATORS = ("operator_largest", "operator_stable_rank", "operator_effective")
FROBENIUS = "operator_frobenius"
Row = dict[str, Any]


def matrix(tensor: Tensor) -> Tensor | None:
    """A weight as a matrix: its first axis x all others, which of a convolution is outputs x (inputs x kernel). None for
    vectors, scalars, and what has no entries or is no number with a fraction."""
    floating = tensor.is_floating_point() or tensor.is_complex()
    return tensor.flatten(1) if tensor.dim() > 1 and tensor.numel() and floating else None


def spectrum(tensor: Tensor) -> list[Row]:
    """Three rows about the singular values s of `matrix(tensor)`: the largest; the stable rank, sum(s^2) / max(s)^2; the
    effective number of them, exp of the entropy of s / sum(s). The last two lie between 1 and the smaller side `n`, and have
    a status where all values are 0. Nothing for what is no matrix. Computed in float64.

    Of a convolution this is not the norm of the map from image to image, which depends on the size of the image and on how
    kernels overlap: it says how the kernels differ. `operator_spectrum` is of the map.
    Source: Roy and Vetterli, The effective rank, 2007 (the effective number); Rudelson and Vershynin, Sampling from
    large matrices, 2007 (the stable rank).
    """
    if (found := matrix(tensor)) is None:
        return []
    values = torch.linalg.svdvals(found.to(torch.complex128 if found.is_complex() else torch.float64).cpu())
    return _rows(METRICS, values)


def operator_spectrum(operator: Operator, values: int = 0) -> list[Row]:
    """Three rows as those of `spectrum`, about all singular values of a layer as a linear map (`circular.singular_values`):
    `operator_largest`, `operator_stable_rank`, `operator_effective`. And at most `values` rows `singular_value`, evenly from the
    largest (`index` 0) to the smallest, both among them; `n` counts all.

    `operator` says what they are of: the layer `itself`, or, where its padding is not circular, the `circular` convolution with
    the same weights, an approximation. Raises `UseError` where a stride does not divide the size.
    """
    of = "itself" if is_circular(operator) else "circular"
    found = singular_values(operator).cpu()
    some = torch.linspace(0, len(found) - 1, min(values, len(found)), dtype=torch.float64).round().long().tolist()
    common = {"metric": "singular_value", "unit": UNIT, "n": len(found), "status": "ok"}
    singles = [{**common, "index": at, "value": float(found[at])} for at in some]
    return [{**row, "operator": of} for row in (*_rows(OF_OPERATORS, found), *singles)]


def operator_rows(operator: Operator, values: int = 0) -> list[Row]:
    """All that is said of a layer as a linear map: `operator_frobenius` of the layer itself, and the rows of
    `operator_spectrum`. Where a stride does not divide the size there are no circular values: then the largest is of the layer
    itself, as `operator_norms` has it, and the others are not applicable."""
    if why := undivided(operator):
        none = {"unit": "", "status": "not applicable", "reason": why}
        return [*operator_norms(operator), *({"metric": name, **none} for name in OF_OPERATORS[1:])]
    return [_frobenius(operator), *operator_spectrum(operator, values)]


def operator_norms(operator: Operator, *, circular: bool = False, tolerance: float = 1e-3, seed: int = 0) -> list[Row]:
    """Two rows: `operator_frobenius`, and `operator_largest`, the spectral norm, between `low` and `high`; its value is `low`.

    Both of a layer `itself`; with `circular` the largest is, where the padding is another, of the circular convolution with
    the same weights: faster, with a certain upper bound (`level` 1), but an approximation, as `operator` says. Else `level` is
    the probability that the upper bound holds: see `lanczos.largest`. The first is not applicable where `frobenius` raises.
    Raises `UseError` as `largest_circular`.
    """
    exact = is_circular(operator)
    fast = exact or circular
    low, high, risk = largest_circular(operator, tolerance) if fast else lanczos.largest(operator, tolerance, seed=seed)
    bounds = {"low": low, "high": high, "interval": "numerical", "level": 1 - risk}
    of = "circular" if fast and not exact else "itself"
    common = {"unit": UNIT, "n": _rank(operator), "status": "ok", "operator": of}
    return [_frobenius(operator), {"metric": OF_OPERATORS[0], "value": low, **bounds, **common}]


def _rank(operator: Operator) -> int:
    """How many singular values an operator has."""
    return min(math.prod(operator.inputs), math.prod(operator.outputs))


def _frobenius(operator: Operator) -> Row:
    row: Row = {"metric": FROBENIUS, "unit": UNIT, "n": _rank(operator), "operator": "itself"}
    try:
        return row | {"value": frobenius(operator), "status": "ok"}
    except UseError as why:
        return row | {"status": "not applicable", "reason": str(why)}


def _rows(names: tuple[str, str, str], values: Tensor) -> list[Row]:
    """What is said of singular values, from the largest on."""
    n, largest = len(values), float(values[0])
    first = {"metric": names[0], "value": largest, "unit": UNIT, "n": n, "status": "ok"}
    if not largest > 0:
        none = {"status": "not applicable", "reason": "all its values are 0"}
        return [first, *({"metric": name, "unit": "", "n": n, **none} for name in names[1:])]
    stable = float((values / largest).square().sum())
    share = values / values.sum()
    effective = math.exp(-float(torch.xlogy(share, share).sum()))
    ranks = zip(names[1:], (stable, effective), strict=True)
    return [first, *({"metric": name, "value": v, "unit": "", "n": n, "status": "ok"} for name, v in ranks)]
