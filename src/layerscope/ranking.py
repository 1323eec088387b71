"""How well one ranking of networks agrees with another: Kendall's tau, and its intervals over networks. Plain numbers."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from layerscope.stats import Interval, bounded_mean

BEST = "best other"
"""What whichever of the others ranks best is called."""
ENOUGH = 20
"""Networks below which two measures are seldom told apart."""
FEWEST = 9
"""Networks below which too many of a difference's bootstrap intervals miss (of 5 networks, 9 % of those of 95 %)."""


def order(values: np.ndarray) -> np.ndarray:
    """Who is above whom: [n, n] of 1 where the row's value is the larger, -1 where the column's is, and 0 for ties. inf is above
    all numbers, and ties with itself."""
    above = (values[:, None] > values).astype(float)
    return above - above.T


def tau(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Kendall's tau-b of two orders [n, n], from -1 (the reverse) to 1 (the same): pairs ordered alike less those ordered
    differently, by the geometric mean of the pairs that each orders. NaN where one orders none.

    With `weights` [..., n], how often each network was drawn, it is the tau-b of that resample, [...]: a network drawn twice
    ties with itself in both orders, so that such a pair counts nowhere. Source: Kendall (1945), Biometrika 33:239.
    """
    weights = np.ones(len(x)) if weights is None else weights

    def total(pairs: np.ndarray) -> np.ndarray:
        return np.asarray(((weights @ pairs) * weights).sum(-1))

    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total(x * y) / np.sqrt(total(abs(x)) * total(abs(y))))


@dataclass(frozen=True)
class Resamples:
    """n networks drawn again and again, with replacement, so that several statistics are computed on the same draws."""

    n: int
    count: int = 2000
    seed: int = 0

    @cached_property
    def weights(self) -> np.ndarray:
        """[1 + count + n, n] of how often each network counts: all once, each resample, and all but one of each."""
        drawn = np.random.default_rng(self.seed).multinomial(self.n, np.full(self.n, 1 / self.n), self.count)
        return np.concatenate([np.ones((1, self.n)), drawn, 1 - np.eye(self.n)])

    def taus(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[1 + count + n] taus of two rankings [n] with each of `weights`, from the networks that have both values (not NaN)."""
        both = ~(np.isnan(x) | np.isnan(y))
        return tau(order(x[both]), order(y[both]), self.weights[:, both])

    def interval(self, values: np.ndarray, networks: int, level: float = 0.95, reach: float = 1.0) -> Interval:
        """The BCa bootstrap interval over networks of a statistic of taus, from its `values` with each of `weights`.

        `networks` is how many it rests on, and `reach` the largest value it can have (1 for tau, 2 for a difference). Where all
        resamples agree there is nothing to resample: see `unanimous`. Otherwise NaN for fewer than 9 networks, or if some network
        decides whether there is a value.
        Source: Efron (1987), Better bootstrap confidence intervals, JASA 82:171; coverage measured in docs/decisions/0020.
        """
        from scipy.special import ndtr, ndtri

        value, drawn, without = values[0], values[1 : 1 + self.count], values[1 + self.count :]
        drawn = drawn[np.isfinite(drawn)]
        if not np.isfinite(without).all() or not len(drawn):
            return Interval(math.nan, math.nan)
        if np.ptp(drawn) == 0:
            return unanimous(float(value), networks, level, reach)
        if networks < FEWEST:
            return Interval(math.nan, math.nan)
        below = ((drawn < value).mean() + (drawn <= value).mean()) / 2
        bias = ndtri(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
        influence = without.mean() - without
        spread = (influence**2).sum()
        skew = (influence**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
        sides = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
        low, high = np.quantile(drawn, ndtr(bias + sides / np.maximum(1 - skew * sides, 1e-9)))
        return Interval(float(low), float(high))

    def lead(self, differences: Sequence[tuple[np.ndarray, int]], level: float = 0.95) -> Interval:
        """The interval of the least of several differences of taus (each with its number of networks): of one measure's lead
        over the best other, whichever that is.

        It is below as soon as one of them is, so that its low end is the least of theirs, each at `level`; to be above
        something it must be so for all of them at once, so that its high end is the least of theirs at a level that holds for
        all. Source of the first: Berger (1982), Technometrics 24:295 (intersection-union tests).
        """
        each = 1 - (1 - level) / len(differences)
        lows = [self.interval(values, networks, level, 2.0).low for values, networks in differences]
        highs = [self.interval(values, networks, each, 2.0).high for values, networks in differences]
        return Interval(float(np.min(lows)), float(np.min(highs)))


def unanimous(value: float, networks: int, level: float = 0.95, reach: float = 1.0) -> Interval:
    """The interval of a statistic that is the same for every pair of networks, such as a tau of 1.

    Networks make networks // 2 pairs that share none. Had more than a share q of all pairs another value, these would all agree
    with a probability of (1 - q)^(networks // 2) at most; q is where that is (1 - level) / 2, and the others could be anything
    up to `reach`. True for any law.
    """
    other = 1 - ((1 - level) / 2) ** (1 / (networks // 2))
    return Interval(value - other * (value + reach), value + other * (reach - value))


class Group(NamedTuple):
    """Networks that differ in one hyperparameter only: their tau, and how many pairs it is of."""

    tau: float
    pairs: int


def groups(x: np.ndarray, y: np.ndarray, own: Sequence[Hashable], others: Sequence[Hashable]) -> list[Group]:
    """Kendall's tau-b of two rankings [n] within each group of networks whose `others` are equal, over the pairs that differ in
    their `own`. Networks without a value (NaN) are left out, and groups that one of the two does not order."""
    known = ~(np.isnan(x) | np.isnan(y))
    found = []
    for place in dict.fromkeys(others):
        inside = np.array([i for i in range(len(x)) if known[i] and others[i] == place], dtype=int)
        differ = np.array([[float(own[i] != own[j]) for j in inside] for i in inside])
        if differ.sum():
            value = float(tau(order(x[inside]) * differ, order(y[inside]) * differ))
            found += [Group(value, int(differ.sum()) // 2)] if math.isfinite(value) else []
    return found


def over_groups(taus: Sequence[float], level: float = 0.95) -> Interval:
    """Interval of the mean of independent taus, of whatever laws; [-1, 1] for none."""
    low, high = bounded_mean((1 + np.asarray(taus, dtype=float)) / 2, level)
    return Interval(2 * low - 1, 2 * high - 1)
