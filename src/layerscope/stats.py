"""Intervals, each with the name of its method. Plain numbers in, plain numbers out."""

import math
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


def around(value: float, influence: np.ndarray, level: float = 0.95) -> Interval:
    """Student's t interval around a statistic, from the influence of each independent unit on it (the delta method): NaN
    for fewer than two units. For a mean, the influence is the value itself, and this is `mean`.

    Right in the limit of many units. Source: van der Vaart (1998), Asymptotic Statistics, Ch. 20.
    """
    spread = mean(influence, level)
    centre = float(np.mean(influence)) if len(influence) else math.nan
    return Interval(value + spread.low - centre, value + spread.high - centre)


def _z(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))
