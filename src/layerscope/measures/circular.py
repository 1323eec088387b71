"""The singular values of convolutions on inputs that go round in circles."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, prod, tau

import torch
from torch import Tensor

from layerscope.errors import UseError
from layerscope.measures.operator import Bracket, Operator
from layerscope.runtime import Apart, apart

SOME, STEPS = 64, 6
"""Among how many frequencies the one with the largest value is guessed, by how many steps of the power method."""
ROUGH = 0.75
"""Of the bracket, how much of it rounding may take of a decomposition in float32."""
PIECE, PIECES, LEAST = 1 << 17, 8, 1 << 16
"""Numbers of the matrices that a thread makes at a time: more do not fit its cache, and with fewer threads wait for each other.
All that is less is made in so many pieces, but for what is too little to be divided."""


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
    with apart(_matrices(operator)) as each:
        gram = _Gram.of(operator)
        values = torch.cat(each(lambda some: _eigenvalues(gram.at(some)).flatten(1), gram.pieces(gram.all)))
    return values.repeat_interleave(gram.times, 0).flatten().sort(descending=True).values.clamp(min=0).sqrt()


def largest_circular(operator: Operator, tolerance: float = 1e-3) -> Bracket:
    """The largest of `singular_values` between two bounds, `high` = (1 + `tolerance`) x `low`, for a fraction of the work.

    The lower bound is a singular value: the largest of some frequencies'. The upper one is certain: for every other frequency
    high^2 - (its Gram matrix) has a Cholesky decomposition, which only positive definite matrices have, or even its trace is
    below high^2. Decompositions are in float32 where what rounding can do is known to be less than the tolerance.
    """
    with apart(_matrices(operator)) as each:
        gram = _Gram.of(operator)
        traces, waiting, low = gram.traces, gram.all, 0.0
        while len(waiting):
            first = _likeliest(gram, waiting)
            low = max(low, float(_eigenvalues(gram.at(waiting[first : first + 1])).max().clamp(min=0).sqrt()))
            ceiling = (low * (1 + tolerance)) ** 2
            waiting = torch.cat([waiting[:first], waiting[first + 1 :]])
            waiting = waiting[traces[waiting] > ceiling]
            rough = gram.rounding(torch.float32, ceiling) < (ceiling - low**2) * ROUGH and 1e-10 < ceiling < 1e10
            waiting = _above(gram, waiting, ceiling, torch.float32 if rough else torch.float64, each)
    return Bracket(low, low * (1 + tolerance))


@dataclass(frozen=True, eq=False)
class _Gram:
    """Of each frequency the Gram matrix of its block, from the correlations of the kernel with itself: these are few, and the
    blocks themselves are never needed.

    `table` has, for the cosine of each lag from 0 on and then the sine of each but 0, real and imaginary part of what it adds
    [rows, groups x side x side x 2]; `waves` these cosines and sines [frequencies, rows]; `times` how often a frequency counts.
    Without another lag than 0 all frequencies have one matrix, and are one here."""

    table: Tensor
    waves: Tensor
    times: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, operator: Operator) -> "_Gram":
        places, taps = _phases(operator)
        if taps.shape[2] > taps.shape[3]:
            taps = taps.mT  # the smaller side: what the other has more of are zeros
            places = -places.flip(0)
            taps = taps.flip(0)
        groups, side = taps.shape[1], taps.shape[2]
        one, other = torch.tril_indices(len(places), len(places))  # places are in order, so that no lag is negative
        lags, where = (places[one] - places[other]).unique(dim=0, return_inverse=True)
        half = taps.new_zeros(len(lags), groups, side, side)
        for tap, to in zip(taps, where.split(list(range(1, len(taps) + 1))), strict=True):
            half.index_add_(0, to, tap @ taps[: len(to)].mT)
        half[0] /= 2
        table = half.new_zeros(2 * len(lags) - 1, groups, side, side, 2)
        torch.add(half, half.mT, out=table[: len(lags), ..., 0])
        torch.sub(half[1:], half[1:].mT, out=table[len(lags) :, ..., 1])
        grid = torch.tensor([n // s for n, s in zip(operator.size, operator.stride, strict=True)], dtype=torch.long)
        frequencies, times = _half(grid) if len(lags) > 1 else (lags, grid.prod()[None])
        angles = tau * (frequencies.double() / grid) @ lags.double().mT
        waves = torch.cat([angles.cos(), angles[:, 1:].sin()], 1)
        return cls(table.flatten(1), waves, times, (groups, side, side))

    @property
    def all(self) -> Tensor:
        """The numbers of all frequencies."""
        return torch.arange(len(self.waves))

    @cached_property
    def rough(self) -> "_Gram":
        """The same in float32."""
        return replace(self, table=self.table.float(), waves=self.waves.float())

    @cached_property
    def sizes(self) -> float:
        """Sum of the 2-norms of the table's rows."""
        return float(self.table.norm(dim=1).sum())

    @cached_property
    def traces(self) -> Tensor:
        """The largest trace of a frequency's Gram matrices, which bounds all their eigenvalues `[frequencies]`."""
        traces = self.table.reshape(-1, *self.shape, 2)[..., 0].diagonal(dim1=2, dim2=3).sum(2)
        return (self.waves @ traces).amax(1)

    def at(self, frequencies: Tensor, out: Tensor | None = None) -> Tensor:
        """Gram matrices `[frequencies, groups, side, side]`; `out` [frequencies, numbers] is where they shall be."""
        numbers = torch.mm(self.waves[frequencies], self.table, out=out)
        return torch.view_as_complex(numbers.reshape(-1, *self.shape, 2))

    def room(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """For `n` matrices, their Cholesky factors, column by column, and what is said of these."""
        numbers = self.table.new_empty(n, self.table.shape[1])
        factors = torch.view_as_complex(torch.empty_like(numbers).reshape(n, *self.shape, 2)).mT
        return numbers, factors, torch.empty(n, self.shape[0], dtype=torch.int32)

    def below(self, ceiling: float, kind: torch.dtype) -> "_Gram":
        """Of ceiling - Gram matrix, in numbers of this kind; the ceiling is lower by what rounding can do."""
        given = self.rough if kind == torch.float32 else self
        table = -given.table
        same = torch.view_as_complex(table[0].view(*self.shape, 2)).diagonal(dim1=1, dim2=2)
        same += ceiling - self.rounding(kind, ceiling)
        return replace(given, table=table)

    def rounding(self, kind: torch.dtype, ceiling: float) -> float:
        """How much larger an eigenvalue of a Gram matrix can be than a ceiling, though the Cholesky decomposition of their
        difference, of numbers of this kind, ends. Source: Higham, Accuracy and stability of numerical algorithms, 2002,
        Theorem 10.3 and Sec. 3.6, with |l_i| |l_j| <= ceiling."""
        unit, side = torch.finfo(kind).eps / 2, self.shape[2]
        entries = (len(self.table) + 4) * (self.sizes + ceiling)
        return 1.01 * unit * (entries + (side + 12) * side * ceiling)

    def pieces(self, frequencies: Tensor) -> Sequence[Tensor]:
        """Frequencies in pieces, one for a thread at a time."""
        each = prod(self.shape)
        most = min(max(1, PIECE // each), max(ceil(LEAST / each), ceil(len(frequencies) / PIECES)))
        return frequencies.split(most) if len(frequencies) else ()


def _matrices(operator: Operator) -> int:
    """How many frequencies have matrices of their own, or a few more."""
    places = prod(n // s for n, s in zip(operator.size, operator.stride, strict=True))
    return places if prod(operator.kernel) > 1 else 1


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
    places = _places(spread)
    some = taps.flatten(1).any(1)  # dilation leaves taps without weights
    return (places[some], taps[some]) if some.any() else (places[:1], taps[:1])


def _half(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Of each two conjugate frequencies one `[frequencies, axes]`, and how often it counts: once if it is its own conjugate."""
    every = _places(grid.tolist())
    weights = torch.tensor([prod(grid.tolist()[i + 1 :]) for i in range(len(grid))], dtype=torch.long)
    number, conjugate = (every * weights).sum(1), ((-every % grid) * weights).sum(1)
    return every[number <= conjugate], (1 + (number < conjugate).long())[number <= conjugate]


def _places(sides: Sequence[int]) -> Tensor:
    """All places of a grid of such sides, in order `[places, axes]`."""
    axes = torch.meshgrid(*map(torch.arange, sides), indexing="ij") if sides else ()
    return torch.stack(axes, -1).flatten(0, -2) if axes else torch.zeros(1, 0, dtype=torch.long)


def _likeliest(gram: _Gram, frequencies: Tensor) -> int:
    """Where among frequencies, of some spread evenly, the one is that seems to have the largest eigenvalue."""
    some = torch.arange(0, len(frequencies), ceil(len(frequencies) / SOME))
    if len(some) == 1:
        return 0
    matrices = gram.rough.at(frequencies[some])
    vector = matrices[..., :1]
    for _ in range(STEPS):
        vector = matrices @ (vector / vector.norm(dim=2, keepdim=True).clamp(min=1e-30))
    return int(some[vector.norm(dim=2).flatten(1).amax(1).argmax()])


def _above(gram: _Gram, frequencies: Tensor, ceiling: float, kind: torch.dtype, each: Apart[Tensor]) -> Tensor:
    """Those that may have an eigenvalue above a ceiling: the difference has no Cholesky decomposition."""
    if not len(frequencies):
        return frequencies
    difference, pieces, own = gram.below(ceiling, kind), gram.pieces(frequencies), threading.local()

    def fails(some: Tensor) -> Tensor:
        # A thread keeps its memory: to ask for it and give it back with each piece takes half as long as the work.
        own.room = getattr(own, "room", None) or difference.room(len(pieces[0]))
        matrices, factors, info = (part[: len(some)] for part in own.room)
        return torch.linalg.cholesky_ex(difference.at(some, out=matrices), out=(factors, info)).info.any(1)

    return frequencies[torch.cat(each(fails, pieces))]


def _eigenvalues(gram: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(gram)
