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


def apart(values: list[float], half: float) -> list[stats.Interval]:
    return [stats.Interval(value - half, value + 2 * half) for value in values]


def test_draws_that_differ_have_the_interval_of_their_mean():
    values = np.random.default_rng(0).normal(size=9)
    never = (pytest.fail("not asked for") for _ in range(9))
    assert stats.over_draws(values, never) == stats.mean(values)
    assert math.isnan(stats.over_draws(values[:1], never).low)


def test_draws_that_agree_have_no_narrower_interval_than_their_own():
    """By hand: of n draws of which the most frequent value has k, n - k + 1 count."""
    same = [0.2, 0.2, 0.2]
    assert stats.over_draws(np.array(same), apart(same, 0.1)) == pytest.approx((0.1, 0.4))
    two = [0.2, 0.2, 0.3 - 1e-4, 0.3, 0.2]
    found = stats.over_draws(np.array(two), apart(two, 1.0))
    assert found == pytest.approx((np.mean(two) - 1 / math.sqrt(3), np.mean(two) + 2 / math.sqrt(3)))
    assert stats.over_draws(np.array(two), apart(two, 1e-3)) == stats.mean(
        np.array(two)
    )  # they differ by more than that


def test_draws_that_agree_without_intervals_of_their_own():
    none = [stats.Interval(math.nan, math.nan)] * 3
    assert all(map(math.isnan, stats.over_draws(np.full(3, 0.2), none)))
    some = np.array([0.2, 0.2, 0.3])
    assert stats.over_draws(some, none) == stats.mean(some)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 0),
        ([0.1], 1),
        ([0, 0], 1),
        ([0, 1], 2),
        ([2, 1, 1, 2, 1, 0], 4),
        ([0.3 - 0.2, 0.4 - 0.3, 0.5 - 0.4], 1),  # but for rounding
        ([-1e-12, 2e-12, 1.0000000001e-12], 3),
    ],
)
def test_how_many_draws_are_unlike_each_other(values, expected):
    assert stats.unlike(np.array(values, dtype=float)) == expected


@pytest.mark.parametrize("level", [0.95, 1 - 0.05 / 9])
@pytest.mark.parametrize(("draws", "together"), [(2, 1), (3, 1), (12, 1), (3, 3), (12, 3)])
def test_means_over_draws_cover_where_changes_are_rare(draws, together, level):
    """In a draw so many of 200 samples go wrong as a Poisson variable says, one by one or three `together`. Student's t misses
    in most cases where few do: all draws are the same."""
    random, n = np.random.default_rng(0), 200
    for expected in (0.1, 0.5, 3):
        counts = together * random.poisson(expected / together, size=(150, draws))
        own = [[stats.paired_proportions(int(count), 0, n, level) for count in some] for some in counts]
        found = [stats.over_draws(some / n, each, level) for some, each in zip(counts, own, strict=True)]
        assert np.mean([not low <= expected / n <= high for low, high in found]) <= 1 - level + 0.03
        if expected == 0.1:
            plain = [stats.mean(some / n, level) for some in counts]
            assert np.mean([not low <= expected / n <= high for low, high in plain]) > 0.3


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


def test_a_capital_is_one_on_average_if_the_mean_is_right():
    """Exactly: over all 2^8 outcomes of a coin, whichever way it is bet on."""
    coin, n = 0.3, 8
    tosses = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    chances = np.prod(np.where(tosses, coin, 1 - coin), axis=1)
    capitals = np.exp([stats.capital(toss.astype(float), coin) for toss in tosses])
    assert chances @ capitals == pytest.approx([1, 1])


def test_a_capital_by_hand():
    # One value of 1: against a mean of 0.25 a share s wins 3 s, and loses s on the other side.
    found = stats.capital(np.array([1.0]), 0.25)
    assert found.high == pytest.approx(math.log(np.mean(1 + 3 * stats.SHARES)))
    assert found.low == pytest.approx(math.log(np.mean(1 - stats.SHARES)))


@pytest.mark.parametrize("n", [0, 1, 300])
def test_a_capital_of_zeros(n):
    for mean in (0.001, 0.4):
        assert stats.of_zeros(n, mean) == pytest.approx(stats.capital(np.zeros(n), mean).low)


def test_a_bounded_mean_covers_at_every_look():
    """Blocks that share their noise: of 300 sequences some interval misses in 5 % at most (here in about 1 %)."""
    random = np.random.default_rng(0)
    missed = 0
    for _ in range(300):
        values = random.binomial(16, random.beta(0.5, 4.5, size=150)) / 16
        capitals = [stats.capital(values[:n], 0.1) for n in range(1, 151, 3)]
        missed += np.max(capitals) >= math.log(2 / 0.05)
    assert missed <= 15
    values = random.binomial(16, random.beta(0.5, 4.5, size=150)) / 16
    low, high = stats.bounded_mean(values)
    assert low < values.mean() < high < 0.25


def test_a_bounded_mean_is_where_capitals_end():
    values = np.random.default_rng(1).beta(1, 9, size=100)
    found = stats.bounded_mean(values, 0.9)
    for end, side, inwards in ((found.low, "high", 1e-6), (found.high, "low", -1e-6)):
        assert getattr(stats.capital(values, end), side) >= math.log(20)
        assert getattr(stats.capital(values, end + inwards), side) < math.log(20)
    lows, highs = zip(*(stats.capital(values, mean) for mean in np.linspace(0.01, 0.99, 50)), strict=True)
    assert np.all(np.diff(lows) > 0)
    assert np.all(np.diff(highs) < 0)


def test_a_bounded_mean_of_extremes():
    assert stats.bounded_mean(np.zeros(0)) == (0, 1)
    assert stats.bounded_mean(np.zeros(100)) == pytest.approx((0, 0.05), abs=0.02)
    assert stats.bounded_mean(np.ones(100)) == pytest.approx((0.95, 1), abs=0.02)
