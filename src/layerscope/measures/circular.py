"""The singular values of convolutions on inputs that go round in circles."""

import itertools
from dataclasses import dataclass, replace
from math import ceil, prod, tau

import torch
from torch import Tensor

from layerscope.errors import UseError
from layerscope.measures.operator import Bracket, Operator
from layerscope.runtime import Apart, apart

PROBES = 2
"""Frequencies whose largest value is computed at once, before the others are compared with it."""
SOME, STEPS = 64, 4
"""Among how many frequencies they are guessed at first, by how many steps of the power method."""
PIECE, PIECES = 1 << 17, 8
"""Numbers of all matrices that are made at a time: with fewer threads wait for each other, more gain nothing. And into how many
pieces what is less is divided."""


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
    with apart() as each:
        gram = _Gram.of(operator)
        values = torch.cat(each(lambda some: _eigenvalues(gram.at(some)).flatten(1), gram.pieces(gram.all)))
    return values.repeat_interleave(gram.times, 0).flatten().sort(descending=True).values.clamp(min=0).sqrt()


def largest_circular(operator: Operator, tolerance: float = 1e-3) -> Bracket:
    """The largest of `singular_values` between two bounds, `high` = (1 + `tolerance`) x `low`, for a fraction of the work.

    The lower bound is a singular value: the largest of some frequencies'. The upper one is certain: for every other frequency
    high^2 - (its Gram matrix) has a Cholesky decomposition, which only positive definite matrices have, or even its trace is
    below high^2. Decompositions are in float32 where what rounding can do is known to be less than half of the tolerance.
    """
    with apart() as each:
        gram = _Gram.of(operator)
        waiting, low = _guessed(gram), 0.0
        while len(waiting):
            low = max(low, float(_eigenvalues(gram.at(waiting[:PROBES])).max().clamp(min=0).sqrt()))
            ceiling = (low * (1 + tolerance)) ** 2
            rough = gram.rounding(torch.float32, ceiling) < (ceiling - low**2) / 2 and 1e-10 < ceiling < 1e10
            asked = gram.to(torch.float32) if rough else gram
            waiting = waiting[PROBES:]
            waiting = waiting[gram.traces(waiting) > ceiling]
            waiting = _above(asked, waiting, ceiling, each)
    return Bracket(low, low * (1 + tolerance))


@dataclass(frozen=True, eq=False)
class _Gram:
    """Of each frequency the Gram matrix of its block, from the correlations of the kernel with itself: these are few, and the
    blocks themselves are never needed. `lags` [lags, axes] are half of them; the others are their transposes. `table` has, for
    the cosine and then the sine of each lag, real and imaginary part of what it adds [2 lags, groups x side x side x 2]."""

    lags: Tensor
    table: Tensor
    all: Tensor
    times: Tensor
    grid: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, operator: Operator) -> "_Gram":
        places, taps = _phases(operator)
        if taps.shape[2] > taps.shape[3]:
            taps = taps.mT  # the smaller side: what the other has more of are zeros
            places = -places.flip(0)
            taps = taps.flip(0)
        groups, side = taps.shape[1], taps.shape[2]
        one, other = torch.tril_indices(
            len(places), len(places)
        )  # places are in order: no lag between these is negative
        lags, where = (places[one] - places[other]).unique(dim=0, return_inverse=True)
        half = taps.new_zeros(len(lags), groups, side, side)
        for tap, to in zip(taps, where.split(list(range(1, len(taps) + 1))), strict=True):
            half.index_add_(0, to, tap @ taps[: len(to)].mT)
        half[0] /= 2
        grid = torch.tensor([n // s for n, s in zip(operator.size, operator.stride, strict=True)], dtype=torch.long)
        frequencies, times = _half(grid)
        nothing = torch.zeros_like(half)
        even, odd = (torch.stack(both, 4).flatten(1) for both in ((half + half.mT, nothing), (nothing, half - half.mT)))
        return cls(lags.double(), torch.cat([even, odd]), frequencies, times, grid, (groups, side, side))

    def to(self, kind: torch.dtype) -> "_Gram":
        return replace(self, table=self.table.to(kind))

    def rounding(self, kind: torch.dtype, ceiling: float) -> float:
        """How much larger an eigenvalue of a Gram matrix can be than a ceiling, though the Cholesky decomposition of their
        difference, of numbers of this kind, ends. Source: Higham, Accuracy and stability of numerical algorithms, 2002,
        Theorem 10.3 and Sec. 3.6, with |l_i| |l_j| <= ceiling."""
        unit, side = torch.finfo(kind).eps / 2, self.shape[2]
        entries = (len(self.table) + 4) * float(self.table.norm(dim=1).sum())
        return 1.01 * unit * (entries + (side + 12) * side * ceiling)

    def at(self, frequencies: Tensor) -> Tensor:
        """Gram matrices `[frequencies, groups, side, side]`."""
        numbers = self._waves(frequencies).to(self.table.dtype) @ self.table
        return torch.view_as_complex(numbers.reshape(-1, *self.shape, 2))

    def traces(self, frequencies: Tensor) -> Tensor:
        """The largest trace of a frequency's Gram matrices, which bounds all their eigenvalues `[frequencies]`."""
        traces = self.table.reshape(-1, *self.shape, 2)[..., 0].diagonal(dim1=2, dim2=3).sum(2)
        return (self._waves(frequencies) @ traces).amax(1)

    def _waves(self, frequencies: Tensor) -> Tensor:
        angles = tau * (frequencies.double() / self.grid) @ self.lags.mT
        return torch.cat([angles.cos(), angles.sin()], 1)

    def pieces(self, frequencies: Tensor) -> tuple[Tensor, ...]:
        """Frequencies in pieces, one for a thread at a time."""
        most = max(1, PIECE // prod(self.shape))
        return frequencies.split(min(most, ceil(len(frequencies) / PIECES))) if len(frequencies) else ()


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


def _guessed(gram: _Gram) -> Tensor:
    """All frequencies; first, of some spread evenly, those that seem to have the largest eigenvalues."""
    some = torch.arange(0, len(gram.all), max(1, len(gram.all) // SOME))
    matrices = gram.to(torch.float32).at(gram.all[some])
    vector = matrices[..., :1]
    for _ in range(STEPS):
        unit = vector / vector.norm(dim=2, keepdim=True).clamp(min=1e-30)
        vector = (matrices * unit.mT).sum(3, keepdim=True)  # a third of the time of a product
    best = some[vector.norm(dim=2).flatten(1).amax(1).argsort(descending=True)[:PROBES]]
    others = torch.ones(len(gram.all), dtype=torch.bool).index_fill(0, best, False)
    return torch.cat([gram.all[best], gram.all[others]])


def _above(gram: _Gram, frequencies: Tensor, ceiling: float, each: Apart[Tensor]) -> Tensor:
    """Those that may have an eigenvalue above a ceiling, the likeliest first: the Cholesky decomposition of the difference ends
    the earlier the farther it is from being positive definite."""
    level = ceiling - gram.rounding(gram.table.dtype, ceiling)

    def ends(some: Tensor) -> Tensor:
        difference = gram.at(some).neg_()
        difference.diagonal(dim1=2, dim2=3).add_(level)
        info = torch.linalg.cholesky_ex(difference).info
        return torch.where(info == 0, gram.shape[2] + 1, info).amin(1)

    if not len(frequencies):
        return frequencies
    found = torch.cat(each(ends, gram.pieces(frequencies)))
    return frequencies[found.argsort()][: int((found <= gram.shape[2]).sum())]


def _eigenvalues(gram: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(gram)
