"""The singular values of convolutions on inputs that go round in circles."""

import itertools
from dataclasses import dataclass
from math import prod, tau

import torch
from torch import Tensor

from layerscope.errors import UseError
from layerscope.measures.distance import AT_ONCE
from layerscope.measures.operator import Bracket, Operator

PROBES = 8
"""Frequencies whose largest value is computed at once, before the others are compared with it."""


def is_circular(operator: Operator) -> bool:
    """Whether `singular_values` are those of the operator itself: it is a linear layer, or its windows go round in circles, or
    none crosses the border, as with patches beside each other. Otherwise they are an approximation."""
    axes = zip(operator.size, operator.outputs[1:], operator.stride, operator.padding, operator.reach, strict=True)
    return all(n == m * s and (operator.mode == "circular" or (sum(p) == 0 and r < s)) for n, m, s, p, r in axes)


def undivided(operator: Operator) -> str:
    """Why there is no circular convolution with these weights and strides on this size; empty where there is one."""
    for n, s in zip(operator.size, operator.stride, strict=True):
        if n % s:
            return f"a stride of {s} does not divide the size {n}, so that the convolution is no circular one"
    return ""


def singular_values(operator: Operator) -> Tensor:
    """All singular values of the circular convolution y[q] = sum_t weight[t] x[(stride q + dilation t) mod size], with
    size / stride places q an axis: from the largest on, each as often as it occurs, float64. Padding does not matter, for it
    only moves the input around. Of a linear layer, those of its matrix.

    A convolution with zero padding has other values: on small inputs the largest by several per cent, others by more. See
    `is_circular`, and `lanczos.largest` for its largest. They are roots of eigenvalues of Gram matrices, so that small ones are
    right to about 1e-7 of the largest, not of themselves.

    Raises `UseError` where a stride does not divide the size.
    Source: Sedghi, Gupta and Long, The singular values of convolutional layers, 2019, Theorem 6. Differs from the paper: only
    one of each two conjugate frequencies; strides are channels (the inputs of each phase) of a smaller picture.
    """
    gram = _Gram.of(operator)
    values = torch.cat([_eigenvalues(gram.at(some)).flatten(1) for some in gram.pieces(gram.all)])
    return values.repeat_interleave(gram.times, 0).flatten().sort(descending=True).values.clamp(min=0).sqrt()


def largest_circular(operator: Operator, tolerance: float = 1e-3) -> Bracket:
    """The largest of `singular_values` between two bounds, `high` = (1 + `tolerance`) x `low`, for a fraction of the work.

    The lower bound is a singular value: the largest of some frequencies'. The upper one is certain: for every other frequency
    high^2 - (its Gram matrix) has a Cholesky decomposition, which only positive definite matrices have, or even its trace is
    below high^2.
    """
    gram = _Gram.of(operator)
    traces = gram.traces()
    waiting = gram.all[traces.argsort(descending=True)]
    traces, low = traces.sort(descending=True).values, 0.0
    while len(waiting):
        low = max(low, float(_eigenvalues(gram.at(waiting[:PROBES])).max().clamp(min=0).sqrt()))
        ceiling = (low * (1 + tolerance)) ** 2
        open_ = traces[PROBES:] > ceiling
        waiting, traces = waiting[PROBES:][open_], traces[PROBES:][open_]
        above = [_reaches(gram.at(some), ceiling) for some in gram.pieces(waiting)]
        if above:
            waiting, traces = waiting[torch.cat(above)], traces[torch.cat(above)]
    return Bracket(low, low * (1 + tolerance))


@dataclass(frozen=True, eq=False)
class _Gram:
    """Of each frequency the Gram matrix of its block, from the correlations of the kernel with itself: these are few, and the
    blocks themselves are never needed. `lags` [lags, axes] are half of them; the others are their transposes."""

    lags: Tensor
    even: Tensor
    odd: Tensor
    all: Tensor
    times: Tensor
    grid: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, operator: Operator) -> "_Gram":
        places, taps = _phases(operator)
        if taps.shape[2] > taps.shape[3]:
            taps = taps.mT  # the smaller side: what the other has more of are zeros
            places = -places
        groups, side = taps.shape[1], taps.shape[2]
        lags, where = (places[:, None] - places[None]).flatten(0, 1).unique(dim=0, return_inverse=True)
        products = taps.new_zeros(len(lags), groups, side, side)
        for tap, to in zip(taps, where.reshape(len(taps), -1), strict=True):
            products.index_add_(0, to, tap @ taps.mT)
        middle = len(lags) // 2  # lags are in order, and with each its negative is there: the middle one is 0
        half = products[middle:]
        half[0] /= 2
        grid = torch.tensor([n // s for n, s in zip(operator.size, operator.stride, strict=True)], dtype=torch.long)
        frequencies, times = _half(grid)
        even, odd = (half + half.mT).flatten(1), (half - half.mT).flatten(1)
        return cls(lags[middle:].double(), even, odd, frequencies, times, grid, (groups, side, side))

    def at(self, frequencies: Tensor) -> Tensor:
        """Gram matrices `[frequencies, groups, side, side]`."""
        angles = tau * (frequencies.double() / self.grid) @ self.lags.mT
        return torch.complex(angles.cos() @ self.even, angles.sin() @ self.odd).reshape(-1, *self.shape)

    def traces(self) -> Tensor:
        """The largest trace of a frequency's Gram matrices, which bounds all their eigenvalues `[frequencies]`."""
        angles = tau * (self.all.double() / self.grid) @ self.lags.mT
        traces = self.even.reshape(-1, *self.shape).diagonal(dim1=2, dim2=3).sum(2)
        return (angles.cos() @ traces).amax(1)

    def pieces(self, frequencies: Tensor) -> tuple[Tensor, ...]:
        """Frequencies in pieces whose matrices are in memory at a time."""
        return frequencies.split(max(1, AT_ONCE // prod(self.shape))) if len(frequencies) else ()


def _phases(operator: Operator) -> tuple[Tensor, Tensor]:
    """A convolution with stride as one without, on the places q of its outputs: the inputs of each phase r = 0 .. stride - 1
    are channels of their own. Gives the offsets of q `[taps, axes]` and weights `[taps, groups, outputs, inputs x phases]`."""
    if why := undivided(operator):
        raise UseError(f"{why}; the largest value with zero padding is measures.lanczos.largest")
    outputs, each = operator.weight.shape[:2]
    spread = [r // s + 1 for r, s in zip(operator.reach, operator.stride, strict=True)]
    full = operator.weight.new_zeros(outputs, each, *(q * s for q, s in zip(spread, operator.stride, strict=True)))
    full[(..., *(slice(0, r + 1, d) for r, d in zip(operator.reach, operator.dilation, strict=True)))] = operator.weight
    axes = len(spread)
    sides = [side for pair in zip(spread, operator.stride, strict=True) for side in pair]
    taps = full.reshape(outputs, each, *sides).permute(*range(2, 2 + 2 * axes, 2), 0, 1, *range(3, 3 + 2 * axes, 2))
    taps = taps.reshape(prod(spread), operator.groups, outputs // operator.groups, -1)
    places = torch.tensor(list(itertools.product(*map(range, spread))), dtype=torch.long).reshape(len(taps), axes)
    some = taps.flatten(1).any(1)  # dilation leaves taps without weights
    return (places[some], taps[some]) if some.any() else (places[:1], taps[:1])


def _half(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Of each two conjugate frequencies one `[frequencies, axes]`, and how often it counts: once if it is its own conjugate."""
    every = torch.tensor(list(itertools.product(*map(range, grid.tolist()))), dtype=torch.long).reshape(-1, len(grid))
    weights = torch.tensor([prod(grid.tolist()[i + 1 :]) for i in range(len(grid))], dtype=torch.long)
    number, conjugate = (every * weights).sum(1), ((-every % grid) * weights).sum(1)
    return every[number <= conjugate], (1 + (number < conjugate).long())[number <= conjugate]


def _eigenvalues(gram: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(gram)


def _reaches(gram: Tensor, ceiling: float) -> Tensor:
    """Which frequencies may have an eigenvalue above a ceiling `[frequencies]`."""
    gram = gram.neg()
    gram.diagonal(dim1=2, dim2=3).add_(ceiling)
    return (torch.linalg.cholesky_ex(gram).info != 0).any(1)
