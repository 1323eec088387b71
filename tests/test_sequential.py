"""Certified answers: exact by enumeration where N is tiny, by reshuffling where it is not."""

import json
import math
from collections.abc import Sequence
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from layerscope import sequential
from layerscope.analyses.verdicts import verdict
from layerscope.errors import UseError
from layerscope.sequential import LOWER, NEWTON, STAKE, UPPER, Answers, Decide, Question, Within, looks, needed, replay
from layerscope.stats import Interval

KEPT, WORSE, STILL, BETTER = range(4)


def fresh(question: Question, rows: int) -> Answers:
    """As many rows as we like, each at the level of one of the question's cells."""
    lowest, highest = np.full(rows, -question.wrong), np.full(rows, question.right)
    return Answers(question, np.zeros((rows, 0, 4), dtype=np.int64), lowest, highest)


def fed(answers: Answers, counts: np.ndarray) -> Answers:
    """After a batch of these counts, [rows, 4]."""
    right, worse, wrong, better = counts[answers.open].T
    return answers.after(right + worse, wrong + better, worse, better)


def orders(kept: int, worse: int, still: int, better: int) -> np.ndarray:
    """All orders in which samples of these kinds can come, one-hot, [orders, samples, 4]."""
    n = kept + worse + still + better
    codes = [np.full(n, KEPT)]
    for kind, many in ((WORSE, worse), (STILL, still), (BETTER, better)):
        codes = [
            put(code, places, kind)
            for code in codes
            for places in combinations(np.flatnonzero(code == 0).tolist(), many)
        ]
    return np.eye(4, dtype=np.int64)[np.stack(codes)]


def put(code: np.ndarray, places: Sequence[int], kind: int) -> np.ndarray:
    code = code.copy()
    code[list(places)] = kind
    return code


def batched(samples: np.ndarray, ends: list[int]) -> np.ndarray:
    """Counts of each batch, [rows, batches, 4], from one-hot samples."""
    return np.add.reduceat(samples, [0, *ends[:-1]], axis=1)


def shuffled(kinds: tuple[int, int, int, int], rows: int, ends: list[int], seed: int = 0) -> np.ndarray:
    """Counts of each batch, of samples of these kinds in random orders."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(4), kinds)
    one = lambda: np.eye(4, dtype=np.int64)[rng.permutation(codes)]  # noqa: E731
    return np.stack([batched(one()[None], ends)[0] for _ in range(rows)])


def watched(question: Question, counts: np.ndarray) -> tuple[Answers, np.ndarray]:
    """The answers at the end, and which rows' bounds missed the truth at some look."""
    answers, total = fresh(question, len(counts)), counts.sum(1)[:, WORSE] - counts.sum(1)[:, BETTER]
    missed = np.zeros(len(counts), dtype=bool)
    for batch in np.moveaxis(counts, 1, 0):
        if not answers.open.any():
            break
        answers = fed(answers, batch)
        missed |= (total < answers.lowest) | (total > answers.highest)
    return answers, missed


TINY = [(worse, better) for worse in range(6) for better in range(4)]


class TestExactly:
    """Five right and three wrong samples, in every order."""

    @pytest.mark.parametrize("ends", [[1, 2, 3, 4, 5, 6, 7, 8], [2, 5, 8]])
    @pytest.mark.parametrize("rule", [Within(0.05), Decide(2.0, 0.1, 0.3)])
    def test_bounds_cover_as_often_as_they_say(self, rule, ends):
        question = Question(5, 3, 1, rule, level=0.5)
        rates = [
            watched(question, batched(orders(5 - worse, worse, 3 - better, better), ends))[1].mean()
            for worse, better in TINY
        ]
        assert max(rates) <= 0.5
        assert max(rates) > 0.05  # else nothing was put to the test

    @pytest.mark.parametrize("side", [LOWER, UPPER])
    @pytest.mark.parametrize("rule", [Within(0.3), Decide(2.0, 0.1, 0.3)])
    def test_bets_against_the_truth_are_fair(self, rule, side):
        """Mean capital over all orders: exactly 1 where each sample is a batch, at most 1 for larger batches."""
        question = Question(5, 3, 1, rule)
        for worse, better in TINY:
            samples = orders(5 - worse, worse, 3 - better, better)
            single, triple = (
                capital(question, batched(samples, ends)[:, :most], worse - better, side).mean()
                for ends, most in (([1, 2, 3, 4, 5, 6, 7, 8], 8), ([3, 6, 8], 2))
            )
            assert single == pytest.approx(1, abs=1e-9)
            assert 0 < triple <= 1 + 1e-9

    def test_bets_against_another_value_pay(self):
        samples = batched(orders(5, 0, 3, 0), [1, 2, 3, 4, 5, 6, 7, 8])
        question = Question(5, 3, 1, Within(0.3))
        assert capital(question, samples[:, :5], 3, UPPER).mean() > 1.5


def capital(question: Question, counts: np.ndarray, total: int, side: int) -> np.ndarray:
    bets = sequential._bets(counts, question)
    return np.exp(bets.log_capital(side, np.full(len(counts), total)))


@st.composite
def passes(draw):
    """A question, and a whole pass in batches: counts [rows, batches, 4]."""
    kinds = tuple(draw(st.integers(0, 30)) for _ in range(4))
    n = sum(kinds)
    if n == 0:
        kinds, n = (1, 0, 0, 0), 1
    ends = sorted(draw(st.sets(st.integers(1, n), max_size=6)) | {n})
    rule = draw(st.sampled_from([Within(0.01), Within(0.2), Decide(0.9), Decide(0.5, 0.3, math.inf)]))
    question = Question(kinds[0] + kinds[1], kinds[2] + kinds[3], 3, rule, draw(st.sampled_from([0.3, 0.95])))
    return question, shuffled(kinds, 3, ends, draw(st.integers(0, 99)))


class TestAlways:
    @settings(deadline=None, max_examples=80)
    @given(passes())
    def test_bounds_only_move_in_and_end_at_the_truth(self, case):
        question, counts = case
        answers, total = Answers.of(question), counts.sum(1)[:, WORSE] - counts.sum(1)[:, BETTER]
        for batch in np.moveaxis(counts, 1, 0):
            before, answers = answers, fed(answers, batch) if answers.open.any() else answers
            assert (answers.lowest <= answers.highest).all()
            exact = answers.n == question.n  # what is certain overrules what was betted
            assert ((answers.lowest >= before.lowest) & (answers.highest <= before.highest) | exact).all()
            closed = ~before.open
            assert (answers.n == before.n)[closed].all()
            assert (answers.lowest[exact] == total[exact]).all()
            assert (answers.highest[exact] == total[exact]).all()
        assert not answers.open.any()

    @settings(deadline=None, max_examples=50)
    @given(passes(), st.sampled_from([LOWER, UPPER]))
    def test_what_lies_further_out_is_given_up_too(self, case, side):
        """Bisection needs it: the capital against a value grows with its distance."""
        question, counts = case
        bets = sequential._bets(counts[:, :-1], question)
        totals = np.arange(-question.wrong, question.right + 1)[::-side]
        found = np.stack([bets.log_capital(side, np.full(len(counts), total)) for total in totals])
        assert (np.diff(found, axis=0) >= -1e-9).all()

    @settings(deadline=None, max_examples=40)
    @given(passes(), st.integers(0, 5))
    def test_going_on_from_a_state_is_going_on(self, case, at):
        question, counts = case
        once = again = Answers.of(question)
        for i, batch in enumerate(np.moveaxis(counts, 1, 0)):
            if i == at:
                again = Answers.resumed(question, json.loads(json.dumps(again.state())))
            once, again = (fed(a, batch) if a.open.any() else a for a in (once, again))
        assert once.state() == again.state()

    def test_a_higher_level_has_wider_bounds(self):
        counts = shuffled((850, 50, 90, 10), 20, [100, 200, 1000])[:, :2]
        bounds = [watched(Question(900, 100, 1, Within(0.02), level), counts)[0] for level in (0.8, 0.95, 0.999)]
        for inner, outer in pairwise(bounds):
            assert (outer.lowest < inner.lowest).all()
            assert (outer.highest > inner.highest).all()

    def test_the_future_does_not_matter(self):
        counts = shuffled((850, 50, 90, 10), 5, looks(1000))
        other = counts.copy()
        other[:, 20:] = other[:, 20:][:, ::-1]
        question = Question(900, 100, 1, Decide(0.8))
        one, two = (sequential._bets(c, question) for c in (counts, other))
        for a, b in ((one.lower, two.lower), (one.upper, two.upper)):
            assert (a[:, :21] == b[:, :21]).all()
            assert (a[:, 21:] != b[:, 21:]).any()


class TestTwin:
    """Bounds are those of a slow twin, which at each look makes every bet again and tries every value."""

    @settings(deadline=None, max_examples=60)
    @given(passes())
    def test_gives_the_same_bounds_at_every_look(self, case):
        question, counts = case
        answers, bounds = Answers.of(question), [(-question.wrong, question.right)] * len(counts)
        for look, batch in enumerate(np.moveaxis(counts, 1, 0), start=1):
            for i in np.flatnonzero(answers.open):
                bounds[i] = slowly(question, counts[i, :look], *bounds[i])
            answers = fed(answers, batch) if answers.open.any() else answers
            assert list(zip(answers.lowest, answers.highest, strict=True)) == bounds

    def test_in_a_map_of_ten_thousand_samples(self):
        question, bounds = Question(9500, 500, 40, Within(0.01)), (-500, 9500)
        counts = shuffled((9310, 190, 450, 50), 1, looks(10_000, growth=1.3))
        answers = Answers.of(question, some=1)
        for look, batch in enumerate(np.moveaxis(counts, 1, 0), start=1):
            if not answers.open.any():
                break
            answers, bounds = fed(answers, batch), slowly(question, counts[0, :look], *bounds)
            assert (answers.lowest[0], answers.highest[0]) == bounds
        assert answers.n[0] < 6_000


def slowly(question: Question, counts: np.ndarray, lowest: int, highest: int) -> tuple[int, int]:
    """The bounds of a cell after these batches [batches, 4], from those before."""
    right, worse, wrong, better = counts.sum(0)
    surely = worse - better - (question.wrong - wrong - better), worse - better + (question.right - right - worse)
    lowest, highest = np.clip((lowest, highest), *surely)
    totals = np.arange(lowest, highest + 1)
    log_capital = {LOWER: np.zeros(len(totals)), UPPER: np.zeros(len(totals))}
    for i, batch in enumerate(counts):
        net, rest, values, stakes = bet(question, *counts[:i].sum(0))
        for side in (LOWER, UPPER):
            gains = side * (values[:, None] - (totals - net) / rest)
            stake = np.minimum(stakes[side], STAKE / np.maximum(-gains.min(0), 1e-12))
            log_capital[side] += batch @ np.log1p(stake * gains)
    upper = totals[log_capital[UPPER] < question.price].max(initial=lowest)
    lower = totals[(log_capital[LOWER] < question.price) & (totals <= upper)].min(initial=upper)
    return int(lower), int(upper)


def bet(question: Question, kept: int, worse: int, still: int, better: int) -> tuple[int, int, np.ndarray, dict]:
    """What is bet on the next batch: Delta's numerator so far, the samples left, the values of the outcomes, the stakes."""
    right, wrong = question.right - kept - worse, question.wrong - still - better
    rest = max(right + wrong, 1)
    p = (worse + 0.5) / (kept + worse + 10)
    q = (better + 0.5) / (still + better + 10)
    foretold = np.array([p, p, -q, -q]) - (right * p - wrong * q) / rest
    values = np.array([0, 1, 0, -1]) - foretold
    chances = np.array([right * (1 - p), right * p, wrong * (1 - q), wrong * q]) / rest
    mean = chances @ values
    error = math.sqrt(chances @ (values - mean) ** 2 * rest / question.n / (question.n - rest + 10))
    below, above = question.rule.distances(*np.array([[(worse - better + rest * mean) / question.n], [error]]))
    further = question.n / rest
    stakes = {
        LOWER: kelly(values - mean + below * further, chances),
        UPPER: kelly(mean - values + above * further, chances),
    }
    return worse - better, rest, values, stakes


def kelly(gains: np.ndarray, chances: np.ndarray) -> float:
    most = STAKE / max(-gains.min(), 1e-12)
    stake = min(chances @ gains / (chances @ gains**2), most)
    for _ in range(NEWTON):
        per = gains / (1 + stake * gains)
        stake = np.clip(stake + chances @ per / (chances @ per**2), 0, most)
    return float(stake)


HARD = [
    # kept, worse, still wrong, put right
    (980, 0, 20, 0),
    (979, 1, 20, 0),
    (940, 10, 45, 5),
    (500, 500, 0, 0),
    (475, 475, 25, 25),
    (999, 0, 0, 1),
]


class TestCoverage:
    """One cell at level 0.8 and 0.95: each row is a reshuffle."""

    @pytest.mark.parametrize("kinds", HARD)
    @pytest.mark.parametrize("level", [0.8, 0.95])
    def test_within(self, kinds, level):
        question = Question(kinds[0] + kinds[1], kinds[2] + kinds[3], 1, Within(0.02), level)
        rows = 300
        _, missed = watched(question, shuffled(kinds, rows, looks(1000, growth=1.15)))
        assert missed.mean() <= 1 - level + 3 * math.sqrt(level * (1 - level) / rows)

    @pytest.mark.parametrize("beyond", [-1, 0, 1])
    def test_decisions_at_the_threshold(self, beyond):
        """Delta is one sample below, at, and above the threshold of 100 samples of 1,000."""
        kinds = (795 - beyond, 105 + beyond, 95, 5)
        question = Question(900, 100, 1, Decide(1.0, destroyed=math.inf), level=0.8)
        answers, _ = watched(question, shuffled(kinds, 300, looks(1000, growth=1.15)))
        below, above = answers.high < 0.1, answers.low > 0.1
        wrong = {-1: above, 0: above | below, 1: below}[beyond]
        assert wrong.mean() <= 0.2
        assert not answers.open.any()

    @pytest.mark.slow
    @pytest.mark.parametrize("kinds", HARD)
    @pytest.mark.parametrize("rule", [Within(0.02), Decide(0.8), Within(0.002)])
    def test_at_length(self, kinds, rule):
        question = Question(kinds[0] + kinds[1], kinds[2] + kinds[3], 1, rule, 0.9)
        _, missed = watched(question, shuffled(kinds, 5000, looks(1000, growth=1.1)))
        print(kinds, rule, missed.mean())
        assert missed.mean() <= 0.1


class TestRules:
    def test_within_is_a_half_width(self):
        low, high = np.array([0.0, 0.0, -0.01]), np.array([0.02, 0.021, 0.01])
        assert Within(0.01).settled(low, high).tolist() == [True, False, True]

    @pytest.mark.parametrize(
        ("low", "high", "settled"),
        [
            (-0.2, 0.09, True),
            (-0.2, 0.1, False),
            (0.1, 0.3, False),
            (0.11, 0.4, True),
            (0.11, 0.5, True),
            (0.11, 0.51, False),
            (0.51, 1.0, True),
        ],
    )
    def test_settled_is_when_more_samples_cannot_change_the_verdict(self, low, high, settled):
        assert Decide(1.0).settled(np.array([low]), np.array([high])).tolist() == [settled]
        inside = {verdict(Interval(float(x), float(x)), 1.0) for x in np.linspace(low, high, 1001)}
        assert (len(inside) == 1) == settled

    def test_not_asked_whether_destroyed(self):
        assert Decide(0.8, destroyed=math.inf).settled(np.array([0.09]), np.array([0.9])).all()

    @pytest.mark.parametrize(("worse", "expected"), [(5, "ambient"), (200, "critical"), (700, "destroyed")])
    def test_certified_verdicts(self, worse, expected):
        reference = np.arange(2000) < 100
        outcomes = reference | (np.arange(2000) >= 2000 - 2 * worse)
        found = replay(outcomes[None], reference, Decide(0.85), seed=1)
        assert verdict(Interval(found.low[0], found.high[0]), 0.85) == expected
        assert found.n[0] < 700

    def test_estimate_uses_what_is_known_of_the_unmodified_network(self):
        # 10 of 40 right samples made wrong, 2 of 10 wrong ones put right: 0.9 x 1/4 - 0.1 x 1/5.
        answers = Answers.of(Question(90, 10, 1, Within(0.01))).after(40, 5, np.array([10]), np.array([1]))
        assert answers.estimate == pytest.approx([0.9 / 4 - 0.1 / 5])
        assert answers.n.tolist() == [45]


MIRRORED = [((1000, 0), (100, 0)), ((0, 1000), (0, 100))]


class TestBound:
    @pytest.mark.parametrize(("total", "side"), [(30, LOWER), (80, UPPER), (55, UPPER)])
    def test_tail_of_one_kind_is_the_hypergeometric_one(self, total, side):
        question, n = Question(1000, 0, 1, Within(0.01)), 200
        seen = 50 * n // 1000
        expected = (
            hypergeom.logsf(seen - 1, 1000, total, n) if side == LOWER else hypergeom.logcdf(seen, 1000, total, n)
        )
        assert sequential._tail(question, 50, 0, n, total, side) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize(("total", "side"), [(20, LOWER), (70, UPPER)])
    def test_tail_of_both_kinds_by_enumeration(self, total, side):
        question, n, worse, better = Question(90, 30, 1, Within(0.01)), 40, 60, 9
        other = sequential._nearest(question, worse / 90, better / 30, total)
        mass = 0.0
        for a, b in product(range(31), range(11)):
            far = side * (3 * a - 3 * b - (worse - better)) >= -1e-9
            mass += far * hypergeom.pmf(a, 90, total + other, 30) * hypergeom.pmf(b, 30, other, 10)
        assert sequential._tail(question, worse, better, n, total, side) == pytest.approx(math.log(mass), rel=1e-9)

    def test_nearest_is_the_most_likely(self):
        question, worse, better = Question(90, 30, 1, Within(0.01)), 60, 10
        for total in (-5, 20, 70):
            other = sequential._nearest(question, worse / 90, better / 30, total)
            assert abs(other - max(range(max(1, 1 - total), 30), key=lambda b: likelihood(b, total))) <= 1

    def test_the_numbers_of_the_performance_goal(self):
        """2,000 cells to one point: 3.8x for 2 % flips of 10,000 samples, 15x of 50,000; unpaired at worst 1.2x, 2x."""
        for n, paired, unpaired in ((10_000, 3.8, 1.2), (50_000, 15, 2.1)):
            question = Question(n, 0, 2_000, Within(0.01))
            assert n / needed(question, n // 50, 0) == pytest.approx(paired, rel=0.05)
            assert n / needed(question, n // 2, 0) == pytest.approx(unpaired, rel=0.05)

    def test_a_network_that_is_always_wrong_is_the_mirror_of_one_that_is_always_right(self):
        mirrored = [needed(Question(*sides, 1, Within(0.05)), *changed) for sides, changed in MIRRORED]
        assert mirrored[0] == mirrored[1]
        assert 100 < mirrored[0] < 400

    def test_what_cannot_be_settled_needs_all(self):
        assert needed(Question(900, 100, 1, Decide(0.8)), 90, 10) >= 990

    def test_few_samples_are_used_beyond_the_bound(self):
        kinds = (9310, 190, 450, 50)
        question = Question(9500, 500, 2000, Within(0.01))
        answers, _ = watched(question, shuffled(kinds, 8, looks(10_000)))
        assert 0.7 < needed(question, 190, 50) / answers.n.mean() < 1


def likelihood(better: int, total: int) -> float:
    p, q = (total + better) / 90, better / 30
    ok = 0 < p < 1 and 0 < q < 1
    return 60 * math.log(p) + 30 * math.log(1 - p) + 10 * math.log(q) + 20 * math.log(1 - q) if ok else -math.inf


class TestReplay:
    def test_is_what_an_engine_would_do(self):
        rng = np.random.default_rng(3)
        reference = rng.random(1000) < 0.1
        outcomes = reference ^ (rng.random((4, 1000)) < np.array([[0.0], [0.02], [0.5], [0.2]]))
        found = replay(outcomes, reference, Within(0.05), seed=5)
        assert found.truth == pytest.approx(outcomes.mean(1) - reference.mean())
        assert found.covered.all()
        assert (found.high - found.low <= 0.1).all()
        assert found.n[0] == found.n.min() < 300
        assert found.n[2] == found.n.max() > 400
        assert not np.array_equal(found.n, replay(outcomes, reference, Within(0.05), seed=6).n)

    def test_looks_end_at_all_samples(self):
        assert looks(50) == [50]
        ends = looks(10_000)
        assert (ends[0], ends[-1]) == (64, 10_000)
        assert all(b > a for a, b in pairwise(ends))
        assert len(ends) < 110


class TestWrongUse:
    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: Within(0), "between 0 and 1"),
            (lambda: Decide(0.0), "above 0"),
            (lambda: Decide(math.nan), "above 0"),
            (lambda: Decide(0.5, 0.5, 0.1), "ambient < destroyed"),
            (lambda: Question(0, 0, 1, Within(0.1)), "one of each"),
            (lambda: Question(5, 5, 0, Within(0.1)), "one of each"),
            (lambda: Question(5, 5, 1, Within(0.1), 95), "0.95"),
            (lambda: looks(10, 0), "first look"),
            (lambda: replay(np.zeros((1, 5)), np.zeros(4), Within(0.1), 0), "same samples"),
            (lambda: begun().after(3, 2, np.array([4]), np.array([0])), "within its batch"),
            (lambda: begun().after(3, 2, np.array([-1]), np.array([0])), "within its batch"),
            (lambda: begun().after(6, 2, np.array([0]), np.array([0])), "more samples"),
            (lambda: Answers.resumed(Question(5, 5, 2, Within(0.1)), begun().state()), "question has 2"),
        ],
    )
    def test_is_refused(self, make, said):
        with pytest.raises(UseError, match=said):
            make()


def begun() -> Answers:
    return Answers.of(Question(5, 5, 1, Within(0.01)))
