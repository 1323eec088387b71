"""Intervals, each with the name of its method. Plain numbers in, plain numbers out."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


def proportion(count: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a binomial proportion, in [0, 1].

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    from scipy.stats import binomtest

    found = binomtest(count, n).proportion_ci(level, method="wilson")
    return Interval(float(found.low), float(found.high))


def paired_proportions(worse: int, better: int, n: int, level: float = 0.95) -> Interval:
    """Interval of the difference of two paired proportions, in [-1, 1]: (worse - better) / n in the population.

    `worse` samples went from right to wrong, `better` from wrong to right, of `n`.
    Source: Bonett and Price (2012), Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data, Eq. 7 (one is added to each of the two counts, two to n).
    """
    p, q = (worse + 1) / (n + 2), (better + 1) / (n + 2)
    half = _z(level) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return Interval(max(-1.0, p - q - half), min(1.0, p - q + half))


def mean(values: np.ndarray, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent values; NaN for fewer than two values.

    Exact for normal values; for others right in the limit of many.
    """
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return Interval(math.nan, math.nan)
    half = float(t.ppf((1 + level) / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    centre = float(np.mean(values))
    return Interval(centre - half, centre + half)


def over_draws(values: np.ndarray, own: Iterable[Interval], level: float = 0.95) -> Interval:
    """Interval of the mean over independent draws: Student's t, as `mean`, and where draws agree, no narrower than what their
    `own` intervals, over samples, come to for as many draws as are `unlike`.

    Counts agree by chance, and where they are small all of them do. Then t is narrow, or has no width at all, for no reason:
    that three draws turn no sample round does not say that none would. Where no two draws agree, it is t alone, and `own` is
    not asked for. NaN for fewer than two draws, and where all agree and have no intervals of their own (NaN).
    Coverage: docs/decisions/0003.
    """
    spread, draws = mean(values, level), unlike(values)
    if len(values) < 2 or draws == len(values):
        return spread
    centre, ends = float(np.mean(values)), np.array(list(own))
    below, above = np.abs(ends - values[:, None]).mean(0) / math.sqrt(draws)
    if math.isnan(below + above):
        return spread if draws > 1 else Interval(math.nan, math.nan)
    return Interval(min(spread.low, centre - below), max(spread.high, centre + above))


def unlike(values: np.ndarray) -> int:
    """One, and how many values are not the most frequent one, but for rounding: 1 where all agree, all where no two do."""
    gaps = np.diff(np.sort(values)) > 1e-9 * np.max(np.abs(values), initial=0.0)
    runs = np.split(gaps, np.flatnonzero(gaps))
    return len(values) - max(int((~run).sum()) for run in runs)


def around(value: float, influence: np.ndarray, level: float = 0.95) -> Interval:
    """Student's t interval around a statistic, from the influence of each independent unit on it (the delta method): NaN
    for fewer than two units. For a mean, the influence is the value itself, and this is `mean`.

    Right in the limit of many units. Source: van der Vaart (1998), Asymptotic Statistics, Ch. 20.
    """
    spread = mean(influence, level)
    centre = float(np.mean(influence)) if len(influence) else math.nan
    return Interval(value + spread.low - centre, value + spread.high - centre)


SHARES = np.array([0.95, *(0.5**k for k in range(1, 8))])
"""Of what a bet can lose: large ones win soon where values hardly scatter, small ones in the end where they do."""


def capital(values: np.ndarray, mean: float) -> Interval:
    """Log of what bets against a mean make of 1, in favour of a lower one (`low`) and of a higher one (`high`), on values in
    [0, 1] as they come. Were it the mean of each value given those before, either would ever reach x with probability 1/x at
    most (Ville). The first grows with `mean`, the second falls, so that bisection finds the bounds of `bounded_mean`.

    A capital is spread over bets of fixed `SHARES` of the most that can be lost: nothing is tuned, and any number of means can
    be asked of at once. 0 < mean < 1. Source: Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by
    betting, JRSS-B 86:1, Sec. 4.
    """
    gains = (mean - values) / (1 - mean), (values - mean) / mean
    logs = (np.log1p(SHARES[:, None] * gain).sum(1) for gain in gains)
    return Interval(*(float(np.logaddexp.reduce(log)) - math.log(len(SHARES)) for log in logs))


def of_zeros(n: int, mean: float) -> float:
    """The `capital` in favour of a lower mean after `n` values that all are 0, however many these are."""
    logs = n * np.log1p(SHARES * mean / (1 - mean))
    return float(np.logaddexp.reduce(logs)) - math.log(len(SHARES))


def bounded_mean(values: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of the mean of independent values in [0, 1], of whatever law, that holds however often one looks while they
    come: the means that no `capital` of 2 / (1 - level) stands against."""
    price = math.log(2 / (1 - level))
    centre = float(np.mean(values)) if len(values) else 0.5
    low = _edge(lambda mean: capital(values, mean).high >= price, centre, 0.0)
    high = _edge(lambda mean: capital(values, mean).low >= price, centre, 1.0)
    return Interval(low, high)


def _edge(refused: Callable[[float], bool], kept: float, out: float) -> float:
    """The end of what is not refused on the way to `out`, rounded outwards: `out` itself, if nothing is refused."""
    for _ in range(30 if kept != out else 0):
        middle = (kept + out) / 2
        if refused(middle):
            out = middle
        else:
            kept = middle
    return out


def _z(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))
