"""How similar two sets of activations are, up to rotation and scale: centred kernel alignment."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from layerscope.errors import UseError
from layerscope.metrics.base import Base, Observation, Row

FEWEST = 4
"""Samples that an unbiased estimate needs."""


class _CKA(Base):
    """What the two ways to compute it have in common: two sets of activations of the same samples, which may be of different
    widths. As a metric, they are a variant's outputs and those of the unmodified network."""

    unit: str = ""
    better: ClassVar[str] = "higher"

    def keep(self, targets: Any, outputs: Any) -> Tensor:
        if not isinstance(outputs, Tensor) or outputs.ndim < 2 or outputs.is_complex():
            shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise UseError(f"{self.name} needs activations [n, units, ...] that are real numbers, but they are {shape}")
        return outputs.detach().flatten(1).cpu()

    def _pair(self, seen: Observation) -> tuple[Tensor, Tensor]:
        x, y = self.keep(None, seen.outputs).double(), seen.reference.double()
        if len(x) != len(y):
            raise UseError(f"{self.name} needs two activations of each sample, but has {len(x)} of one and {len(y)}")
        return x, y

    def _value(self, n: int, xy: float, xx: float, yy: float) -> list[Row]:
        """The row of the three (co)variances."""
        return [{"metric": self.name, "unit": self.unit, "n": n} | normalised(xy, xx, yy)]


def normalised(xy: float, xx: float, yy: float) -> Row:
    """Value and status of a CKA, from a covariance and two variances."""
    if not all(math.isfinite(one) for one in (xy, xx, yy)):
        return {"status": "not finite", "reason": "activations overflow or are not numbers"}
    if not (xx > 0 and yy > 0):
        why = "activations do not vary, or so little that their estimated variance is not above 0"
        return {"status": "not applicable", "reason": why}
    return {"value": 1.0 if xy == xx == yy else xy / math.sqrt(xx) / math.sqrt(yy), "status": "ok"}


@dataclass
class Products:
    """Sums over samples, from which the first sample is subtracted: so little is lost where means are large, and what does not
    vary is 0."""

    n: int
    moved: tuple[Tensor, Tensor]
    sums: tuple[Tensor, Tensor]
    xy: Tensor
    xx: Tensor
    yy: Tensor


class LinearCKA(_CKA):
    """Linear CKA of all samples, in [0, 1]: |X^T Y|^2 / (|X^T X| |Y^T Y|) with Frobenius norms, of centred activations
    X `[n, units]`, Y `[n, other units]`; for others `[n, units, ...]` every place is a unit.

    Exact, whatever the batches. Memory grows with the square of the units, not with samples: for wide activations see `CKA`. It
    is biased upward where there are not many more samples than units: two independent sets are not at 0.
    Source: Kornblith, Norouzi, Lee and Hinton, Similarity of neural network representations revisited, 2019, Eq. 4.
    """

    name = "cka_linear"

    def init(self) -> Products | None:
        return None

    def update(self, state: Products | None, seen: Observation) -> Products:
        x, y = self._pair(seen)
        moved = state.moved if state else (x[0], y[0])
        x, y = x - moved[0], y - moved[1]
        found = Products(len(x), moved, (x.sum(0), y.sum(0)), x.mT @ y, x.mT @ x, y.mT @ y)
        return _added(state, found) if state else found

    def compute(self, state: Products | None) -> list[Row]:
        assert state
        a, b = state.sums
        pairs = ((state.xy, a, b), (state.xx, a, a), (state.yy, b, b))
        xy, xx, yy = (float((products - torch.outer(s, t) / state.n).norm()) for products, s, t in pairs)
        return self._value(state.n, xy**2, xx**2, yy**2)


def _added(a: Products, b: Products) -> Products:
    sums = (a.sums[0].add_(b.sums[0]), a.sums[1].add_(b.sums[1]))
    return Products(a.n + b.n, a.moved, sums, a.xy.add_(b.xy), a.xx.add_(b.xx), a.yy.add_(b.yy))


@dataclass
class Blocks:
    """Samples that wait for their block, and sums over the blocks before: of xy, xx and yy, times samples."""

    waiting: tuple[Tensor, Tensor] | None
    sums: Tensor
    n: int


class CKA(_CKA):
    """Debiased CKA, about 0 for independent activations and 1 of a set with itself: HSIC is estimated without bias in blocks
    of `block` samples, and averaged over them before it is normalised. `kernel` is linear, or rbf: exp(-d^2 / (2 w^2)) of
    distances d, where w is `width` x the median distance between two samples of the block (where that is 0, equal samples have
    1 and others 0). Activations are `[n, units]`; for others `[n, units, ...]` every place is a unit.

    Blocks are of consecutive samples, whatever the batches of the data; what is left at the end is a block of its own, or
    part of the last one if it has fewer than 4 samples. All samples count the same. With `block` at least n it is the estimate
    of all samples at once. Memory: `block` x `block`, and the samples of a block and a batch. Estimates may be negative, and
    there is none where that of a variance is.

    Raises `UseError` for fewer than 4 samples.
    Source: Nguyen, Raghu and Kornblith, Do wide and deep networks learn the same things?, 2021 (blocks); Song et al., Feature
    selection via dependence maximization, 2012, Eq. 5 (HSIC); Kornblith et al., 2019 (width of the kernel). Differs from the
    paper: blocks weigh as many samples as they have, and none is dropped; the paper passes several times over the data.
    """

    def __init__(self, kernel: str = "linear", block: int = 256, width: float = 1.0, level: float = 0.95) -> None:
        super().__init__(level)
        if kernel not in KERNELS:
            raise UseError(f"kernel must be one of {', '.join(KERNELS)}, not {kernel!r}")
        if block < FEWEST or not width > 0:
            raise UseError(f"block must be at least {FEWEST} and width positive, not {block} and {width}")
        self.name = f"cka_{kernel}_debiased"
        self.block, self._kernel = block, lambda x: KERNELS[kernel](x, width)

    def init(self) -> Blocks:
        return Blocks(None, torch.zeros(3, dtype=torch.float64), 0)

    def update(self, state: Blocks, seen: Observation) -> Blocks:
        new = self._pair(seen)
        x, y = (torch.cat(pair) for pair in zip(state.waiting, new, strict=True)) if state.waiting else new
        sums = state.sums
        while len(x) >= self.block + FEWEST:  # what stays is enough for a block
            sums = sums + self._sums(x[: self.block], y[: self.block])
            x, y = x[self.block :], y[self.block :]
        return Blocks((x.clone(), y.clone()), sums, state.n + len(new[0]))

    def compute(self, state: Blocks) -> list[Row]:
        if state.n < FEWEST:
            raise UseError(f"{self.name} needs at least {FEWEST} samples, not {state.n}")
        assert state.waiting
        xy, xx, yy = ((state.sums + self._sums(*state.waiting)) / state.n).tolist()
        return self._value(state.n, xy, xx, yy)

    def _sums(self, x: Tensor, y: Tensor) -> Tensor:
        k, l = self._kernel(x), self._kernel(y)  # noqa: E741
        return len(x) * torch.stack([hsic(k, l), hsic(k, k), hsic(l, l)])


def hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    """The unbiased estimate of the Hilbert-Schmidt independence criterion from two kernel matrices `[n, n]`, n at least 4.

    Source: Song et al., Feature selection via dependence maximization, 2012, Eq. 5.
    """
    n = len(k)
    k, l = (m - m.diag().diag() for m in (k, l))  # noqa: E741
    rows, columns = k.sum(1), l.sum(1)
    cross = rows.sum() * columns.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows @ columns)
    return ((k * l).sum() + cross) / (n * (n - 3))


def biased_hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    """The estimate of the Hilbert-Schmidt independence criterion that is at least 0, from two kernel matrices `[n, n]`.

    Source: Gretton et al., Measuring statistical dependence with Hilbert-Schmidt norms, 2005, Eq. 9.
    """
    centred = k - k.mean(0) - k.mean(1)[:, None] + k.mean()
    return (centred * l).sum() / (len(k) - 1) ** 2


class GramCKA:
    """CKA of many pairs of activations from their Gram matrices, which are all that is kept of activations: for each name of
    one network's, and each of the other's. Blocks of samples are averaged before they are normalised, and each counts as many
    samples as it has; a block is what `gram` is given.

    With `debiased`, HSIC is estimated without bias, as in `CKA`; else as in `LinearCKA`, which takes all samples in one block.
    """

    def __init__(self, kernel: str = "linear", debiased: bool = True, width: float = 1.0) -> None:
        self.name = f"cka_{kernel}{'_debiased' if debiased else ''}"
        self._kernel = lambda x: KERNELS[kernel](x, width)
        self._hsic = hsic if debiased else biased_hsic

    def gram(self, activations: Tensor) -> Tensor:
        """The kernel matrix `[n, n]` of activations `[n, units, ...]`, of which every place is a unit."""
        return self._kernel(activations.detach().flatten(1).cpu().double())

    def sums(self, k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        """What a block adds to the covariance and the variances of a pair. Two that are one object are the same activations."""
        xx = self._hsic(k, k)
        both = (xx, xx, xx) if k is l else (self._hsic(k, l), xx, self._hsic(l, l))
        return len(k) * torch.stack(both)

    def row(self, sums: Tensor, n: int) -> Row:
        """The row of a pair, from the sums of its blocks with `n` samples."""
        return {"metric": self.name, "unit": "", "n": n} | normalised(*(sums / n).tolist())


def _linear(x: Tensor, width: float) -> Tensor:
    x = x - x[0]  # changes nothing but rounding, where means are large; what does not vary is 0
    return x @ x.mT


def _rbf(x: Tensor, width: float) -> Tensor:
    d = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    median = d[~torch.eye(len(d), dtype=torch.bool)].median()
    return (-(d / (width * median)).square() / 2).exp().masked_fill(d == 0, 1)


KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {"linear": _linear, "rbf": _rbf}
