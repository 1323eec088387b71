"""Intervals against published numbers, and their coverage, computed exactly or measured."""

import math

import numpy as np
import pytest
from scipy.stats import binom, multinomial, ttest_1samp

from layerscope import stats


def test_wilson_against_a_published_example():
    # Newcombe (1998), Stat. Med. 17:857, Table I: 81 of 263, Wilson's score method without continuity correction.
    assert stats.proportion(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_mean_against_scipy():
    values = np.random.default_rng(0).normal(size=20)
    assert stats.mean(values, 0.9) == pytest.approx(tuple(ttest_1samp(values, 0).confidence_interval(0.9)))
    assert math.isnan(stats.mean(values[:1]).low)


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_wilson_covers(p):
    n = 400
    inside = [k for k in range(n + 1) if stats.proportion(k, n).low <= p <= stats.proportion(k, n).high]
    assert binom.pmf(inside, n, p).sum() > 0.93


@pytest.mark.parametrize(("worse", "better"), [(0.01, 0.01), (0.05, 0.01), (0.3, 0.02), (0.7, 0.0), (0.002, 0.002)])
def test_paired_interval_covers(worse, better):
    """Exact coverage: all pairs of counts, weighted with their multinomial probability."""
    n = 360
    covered = total = 0.0
    for b in range(int(binom.isf(1e-7, n, worse)) + 1):
        c = np.arange(int(binom.isf(1e-7, n, better)) + 1)
        counts = np.stack([np.full_like(c, b), c, n - b - c], axis=1)
        mass = multinomial.pmf(counts, n, [worse, better, 1 - worse - better])
        bounds = [stats.paired_proportions(b, int(k), n) for k in c]
        covered += sum(m for m, i in zip(mass, bounds, strict=True) if i.low <= worse - better <= i.high)
        total += mass.sum()
    assert total > 0.9999
    assert covered > 0.93


def test_paired_interval_by_hand():
    # 10 worse, 4 better of 100: p = 11/102, q = 5/102.
    p, q = 11 / 102, 5 / 102
    half = 1.959964 * math.sqrt((p + q - (p - q) ** 2) / 102)
    assert stats.paired_proportions(10, 4, 100) == pytest.approx((p - q - half, p - q + half), rel=1e-6)
