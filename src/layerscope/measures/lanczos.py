"""The largest singular value of a convolution as it is, with its padding."""

import math

import torch

from layerscope.errors import UseError
from layerscope.measures.operator import Bracket, Operator
from layerscope.rng import generator


def largest(
    operator: Operator, tolerance: float = 1e-3, risk: float = 1e-6, seed: int = 0, steps: int = 500
) -> Bracket:
    """The largest singular value between two bounds, of which `high` is at most (1 + `tolerance`) x `low`; wider if that takes
    more than `steps` steps, each of which applies the operator and its transpose once.

    The lower bound is certain, being a Rayleigh quotient. The upper one holds but for the probability `risk` over the random
    vector that it starts from. With q_1 that vector, Lanczos's unit vectors are q_(k+1) = p_k(A^T A) q_1 for known
    polynomials p_k, so that the part of q_1 along the largest singular vector is at most 1 / p_k(s^2). A random direction
    of n dimensions is that orthogonal to a given one only with probability `risk`, if it is sqrt(pi / (2 n)) risk;
    p_k grows beyond its last root, and the bound is where it reaches the inverse of that.

    Raises `UseError` if tolerance is not positive, or risk is not between 1e-9 and 1: less is lost in rounding.
    Source: Hochstenbach, Probabilistic upper bounds for the matrix two-norm, 2013, Sec. 3.
    """
    if not tolerance > 0 or not 1e-9 <= risk < 1:
        raise UseError(f"tolerance must be positive and risk in [1e-9, 1), not {tolerance} and {risk}")
    wide = math.prod(operator.outputs) < math.prod(operator.inputs)  # the smaller side
    first, then = (operator.adjoint, operator.apply) if wide else (operator.apply, operator.adjoint)
    shape = (1, *(operator.outputs if wide else operator.inputs))
    start = torch.randn(shape, generator=generator(seed, "lanczos"), dtype=torch.float64)
    enough = -math.log(risk) + math.log(2 * start.numel() / math.pi) / 2
    before, now = torch.zeros_like(start), start / start.norm()
    diagonal: list[float] = []
    beside: list[float] = []
    found = Bracket(0.0, math.inf, risk)
    for _ in range(steps):
        after = then(first(now))
        diagonal.append(float((after * now).sum()))
        after = after - diagonal[-1] * now - (beside[-1] if beside else 0.0) * before
        beside.append(float(after.norm()))
        found = _bracket(diagonal, beside, enough, risk)
        if found.high <= (1 + tolerance) * found.low or beside[-1] == 0:
            break
        before, now = now, after / beside[-1]
    return found


def _bracket(diagonal: list[float], beside: list[float], enough: float, risk: float) -> Bracket:
    """Of a tridiagonal matrix its largest eigenvalue, and where the logarithm of the polynomial becomes `enough`."""
    inner = torch.tensor(beside[:-1], dtype=torch.float64)
    matrix = torch.tensor(diagonal, dtype=torch.float64).diag() + inner.diag(1) + inner.diag(-1)
    low = max(0.0, float(torch.linalg.eigvalsh(matrix)[-1]))
    if beside[-1] == 0:  # nothing is left that the start has a part in
        return Bracket(math.sqrt(low), math.sqrt(low), risk)
    below, above = low, 2 * low + beside[-1]
    while _logarithm(above, diagonal, beside) < enough:
        above *= 2
    while above > below * (1 + 1e-9):
        middle = (below + above) / 2
        below, above = (middle, above) if _logarithm(middle, diagonal, beside) < enough else (below, middle)
    return Bracket(math.sqrt(low), math.sqrt(above), risk)


def _logarithm(t: float, diagonal: list[float], beside: list[float]) -> float:
    """log p_k(t), by its three-term recurrence; -inf at or below its largest root."""
    total, before = 0.0, math.inf
    for k, (here, next_) in enumerate(zip(diagonal, beside, strict=True)):
        ratio = (t - here - (beside[k - 1] / before if k else 0.0)) / next_
        if ratio <= 0:
            return -math.inf
        total, before = total + math.log(ratio), ratio
    return total
