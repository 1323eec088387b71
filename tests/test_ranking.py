"""Kendall's tau against scipy, its intervals against scipy's bootstrap and their coverage, groups by hand."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, kendalltau

from layerscope import ranking
from layerscope.ranking import Resamples

ranks = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12)


@given(ranks)
def test_tau_is_that_of_scipy_with_ties(pairs):
    x, y = np.array(pairs, dtype=float).T
    expected = kendalltau(x, y).statistic
    assert ranking.tau(ranking.order(x), ranking.order(y)) == pytest.approx(expected, nan_ok=True)


@given(ranks, st.integers(0, 10**6))
def test_with_weights_it_is_that_of_the_networks_drawn(pairs, seed):
    x, y = np.array(pairs, dtype=float).T
    drawn = np.random.default_rng(seed).integers(0, len(x), len(x))
    weights = np.bincount(drawn, minlength=len(x)).astype(float)
    expected = kendalltau(x[drawn], y[drawn]).statistic
    assert ranking.tau(ranking.order(x), ranking.order(y), weights) == pytest.approx(expected, nan_ok=True)


def test_infinity_is_the_last_and_ties_with_itself():
    x, y = np.array([1, 2, math.inf, math.inf]), np.array([1.0, 2.0, 3.0, 3.0])
    assert ranking.tau(ranking.order(x), ranking.order(y)) == 1
    assert ranking.order(x)[2, 3] == 0


def test_taus_are_of_networks_with_both_values():
    x, y = np.array([3.0, math.nan, 1.0, 2.0, 5.0]), np.array([1.0, 9.0, 2.0, math.nan, 4.0])
    found = Resamples(5, count=3).taus(x, y)
    assert len(found) == 1 + 3 + 5
    assert found[0] == pytest.approx(kendalltau([3, 1, 5], [1, 2, 4]).statistic)
    assert found[4 + 1] == found[0]  # the second network had no value: nothing changes without it
    assert found[4] == kendalltau([1, 5], [2, 4]).statistic  # without the first


def test_the_interval_is_scipys():
    """BCa of scipy, which resamples by itself: ends agree within what 20,000 draws leave open."""
    random = np.random.default_rng(1)
    y = random.normal(size=25)
    x = y + random.normal(size=25)
    resamples = Resamples(25, count=20_000)
    found = resamples.interval(resamples.taus(x, y), 25, 0.9)
    expected = bootstrap(
        (x, y),
        lambda a, b: kendalltau(a, b).statistic,
        n_resamples=4000,
        paired=True,
        vectorized=False,
        confidence_level=0.9,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=0.02)


def test_unanimous_networks_leave_an_interval():
    """Five disjoint pairs that agree: a share of 2.5 % of such luck needs (1 - q)^5 = 0.025."""
    x = np.arange(10.0)
    resamples = Resamples(10)
    other = 1 - 0.025**0.2
    assert resamples.interval(resamples.taus(x, x), 10) == pytest.approx((1 - 2 * other, 1))
    assert resamples.interval(resamples.taus(x, -x), 10) == pytest.approx((-1, 2 * other - 1))
    none = resamples.taus(x, x) - resamples.taus(x, x)
    assert resamples.interval(none, 10, reach=2.0) == pytest.approx((-2 * other, 2 * other))


def test_no_interval_where_one_network_decides():
    x, y = np.array([1.0, 1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0, 4.0])
    resamples = Resamples(4)
    assert all(map(math.isnan, resamples.interval(resamples.taus(x, y), 4)))


def test_no_interval_of_few_networks():
    x = np.array([2.0, 1, 3, 4, 5, 6, 7, 8, 9])
    for n in (8, 9):
        resamples = Resamples(n)
        found = resamples.interval(resamples.taus(x[:n], np.arange(float(n))), n)
        assert math.isnan(found.low) == (n < 9)


def test_a_lead_is_within_each_difference():
    random = np.random.default_rng(2)
    y = random.normal(size=20)
    resamples = Resamples(20)
    first, *others = (resamples.taus(y + scale * random.normal(size=20), y) for scale in (0.5, 1.0, 2.0))
    differences = [(first - other, 20) for other in others]
    low, high = resamples.lead(differences)
    each = [resamples.interval(values, 20, 0.95, 2.0) for values, _ in differences]
    assert low == min(interval.low for interval in each)
    assert high >= min(interval.high for interval in each)
    assert resamples.lead(differences[:1]) == each[0]


def _groups_by_hand(x, y, hyper, name):
    """Tau of each group, pair by pair, for values without ties."""
    found: dict[tuple, list[float]] = {}
    for i, j in combinations(range(len(x)), 2):
        others = [{k: v for k, v in hyper[at].items() if k != name} for at in (i, j)]
        if others[0] == others[1] and hyper[i][name] != hyper[j][name]:
            agrees = np.sign(x[i] - x[j]) * np.sign(y[i] - y[j])
            found.setdefault(tuple(others[0].items()), []).append(agrees)
    return [float(np.mean(group)) for group in found.values()], sum(map(len, found.values()))


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_groups_by_hand(seed):
    random = np.random.default_rng(seed)
    hyper = [{"width": w, "lr": r, "seed": s} for w in (1, 2, 4) for r in (0.1, 0.2) for s in (0, 1)]
    kept = random.permutation(12)[:9]
    hyper, (x, y) = [hyper[at] for at in kept], random.permuted(np.tile(np.arange(9.0), (2, 1)), axis=1)
    for name in ("width", "lr", "seed"):
        own = [each[name] for each in hyper]
        others = [tuple(v for k, v in each.items() if k != name) for each in hyper]
        found = ranking.groups(x, y, own, others)
        taus, pairs = _groups_by_hand(x, y, hyper, name)
        assert sorted(group.tau for group in found) == pytest.approx(sorted(taus))
        assert sum(group.pairs for group in found) == pairs


def test_groups_leave_out_what_is_not_ordered():
    own, others = ["a", "b", "a", "b", "a", "a"], [0, 0, 1, 1, 2, 2]
    x, y = np.array([1.0, 2, 1, math.nan, 1, 2]), np.array([1.0, 2, 3, 4, 5, 6])
    # Of the second group one value is missing, and the third does not differ in its own.
    assert ranking.groups(x, y, own, others) == [(1.0, 1)]
    assert ranking.groups(np.zeros(6), y, own, others) == []


def test_the_mean_over_groups_has_an_interval_of_any_law():
    low, high = ranking.over_groups([1.0] * 40)
    assert 0.7 < low < 1 == pytest.approx(high)
    assert ranking.over_groups([]) == (-1, 1)
    # Groups whose means differ: half of them surely agree, half surely do not; the interval is of the mean, 0.
    assert ranking.over_groups([1.0, -1.0] * 20)[0] < 0 < ranking.over_groups([1.0, -1.0] * 20)[1]


def _networks(random, n, taus, shared):
    """A target and one measure for each tau: normal, with that tau to the target, and with noise that measures share."""
    target, common = random.normal(size=n), random.normal(size=n)
    for_all, own = math.sqrt(shared), math.sqrt(1 - shared)
    rho = [math.sin(math.pi / 2 * tau) for tau in taus]
    noise = [for_all * common + own * random.normal(size=n) for _ in taus]
    return target, [r * target + math.sqrt(1 - r * r) * e for r, e in zip(rho, noise, strict=True)]


CASES = [((0.0, 0.0), 0.0), ((0.6, 0.3, 0.3), 0.3), ((0.5, 0.5, 0.5, 0.5), 0.3), ((0.85, 0.6), 0.5)]


def _misses(n, taus, shared, repeats, resamples):
    """How often an interval lies above and below the truth, of the first tau, its difference to the second, and its lead."""
    missed = np.zeros((3, 2))
    for repeat in range(repeats):
        target, measures = _networks(np.random.default_rng(repeat), n, taus, shared)
        draws = Resamples(n, resamples, repeat)
        first, *others = (draws.taus(values, target) for values in measures)
        intervals = [
            (draws.interval(first, n), taus[0]),
            (draws.interval(first - others[0], n, 0.95, 2.0), taus[0] - taus[1]),
            (draws.lead([(first - other, n) for other in others]), taus[0] - max(taus[1:])),
        ]
        missed += [[low > truth + 1e-9, high < truth - 1e-9] for (low, high), truth in intervals]
    return missed / repeats


@pytest.mark.parametrize(("taus", "shared"), CASES[:2])
def test_ranking_coverage_in_short(taus, shared):
    """Of 150 draws of 20 networks, 95 % intervals miss at most 10 % (3.5 standard errors of the simulation more than 5 %)."""
    assert (_misses(20, taus, shared, 150, 300).sum(1) <= 0.10).all()


@pytest.mark.slow
@pytest.mark.parametrize("n", [9, 20, 50])
@pytest.mark.parametrize(("taus", "shared"), CASES)
def test_ranking_coverage(n, taus, shared):
    """What docs/decisions/0020 says: of 95 % intervals at most 7 % miss (1,000 draws: 0.7 points of standard error), and a lead
    is claimed wrongly in 4 % at most."""
    missed = _misses(n, taus, shared, 1000, 500)
    print(n, taus, missed.round(3).tolist())
    assert (missed.sum(1) <= 0.07).all()
    assert missed[2, 0] <= 0.04
