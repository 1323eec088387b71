"""Norms of a network as a whole, from those of its linear maps."""

import math
from collections.abc import Iterable
from dataclasses import replace

import torch

from layerscope.measures import lanczos
from layerscope.measures.circular import largest_circular
from layerscope.measures.operator import Bracket, Operator


def spectral(operator: Operator, *, circular: bool = False, tolerance: float = 1e-3, seed: int = 0) -> Bracket:
    """The spectral norm of a linear map between two bounds, which are 0 where all its weights are: with its own padding, or
    of the `circular` convolution with the same weights. See `lanczos.largest` and `circular.largest_circular`."""
    if not operator.weight.any():
        return Bracket(0.0, 0.0)
    return largest_circular(operator, tolerance) if circular else lanczos.largest(operator, tolerance, seed=seed)


def change(to: Operator, from_: Operator) -> Operator:
    """The difference of two linear maps of one shape."""
    return replace(to, weight=to.weight - from_.weight)


def two_one(operator: Operator, transposed: bool = False) -> float:
    """The (2, 1) norm of a linear map's transpose: the sum over its outputs of the 2-norms of their weights. An output of a
    convolution is a channel at a place; at the border it has fewer weights. `transposed` where the map is the operator's
    adjoint, as that of a transposed convolution is."""
    squares = replace(operator, weight=operator.weight.square())
    ones = squares.weight.new_ones(1, *(squares.outputs if transposed else squares.inputs))
    found = squares.adjoint(ones) if transposed else squares.apply(ones)
    return float(found.clamp(min=0).sqrt().sum())


def log_spectral_complexity(norms: Iterable[tuple[float, float]]) -> float:
    """log of prod s_i x (sum_i (b_i / s_i)^(2/3))^(3/2), for the spectral norms s_i > 0 of all maps and the (2, 1) norms b_i of
    how they differ from their reference; -inf where none does.

    Source: Bartlett, Foster and Telgarsky, Spectrally-normalized margin bounds for neural networks, 2017, Eq. 1.2.
    """
    pairs = list(norms)
    logs = [2 / 3 * (math.log(b) - math.log(s)) for s, b in pairs if b > 0]
    total = float(torch.tensor(logs, dtype=torch.float64).logsumexp(0)) if logs else -math.inf
    return math.fsum(math.log(s) for s, _ in pairs) + 1.5 * total
