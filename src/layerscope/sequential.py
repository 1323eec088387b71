"""Certified answers from part of a data set: bounds that hold however often one looks, and when to stop.

A network and changed variants of it ("cells") are compared on the same N samples, taken in an order fixed at random
beforehand, without replacement. Asked is each cell's change of error over *these* N samples,
Delta = (samples made wrong - samples put right) / N. The unmodified network's errors are known on all of them.

    asked = Question(right=9_500, wrong=500, cells=2_000, rule=Within(0.01))
    answers = Answers.of(asked)
    for size, batch in ...:                      # batches of the common order
        answers = answers.after(batch counts of the cells that are open)
        if not answers.open.any(): break
    answers.low, answers.high                    # of Delta, for all cells at once at `level`

Method: betting against each possible value of Delta (Waudby-Smith and Ramdas, 2024, Estimating means of bounded random
variables by betting, JRSS-B 86:1, Sec. 5: without replacement), where the unmodified network's outcome is a control
variate and a batch is one bet. Why it is valid: docs/decisions/0010-certified-answers.md.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from layerscope.errors import UseError

Array = np.ndarray
UPPER, LOWER = -1, 1
"""Which bound a bet is for: the upper one is moved down by betting that Delta is smaller."""

STAKE = 0.9
"""Share of its capital a bet may lose; at 1, one sample could end a cell's bets for good."""
GUESS, WEIGHT = 0.05, 10.0
"""Before any sample: a share of changed outcomes, and how many samples that guess is worth. Costs or saves samples only."""
AIM = 3.0
"""Standard errors from the estimate at which bounds are aimed that are wanted as narrow as they can be: about where bounds
of as many samples lie. Costs or saves samples only."""
FINEST = 0.01
"""A decision aims at thresholds as if they were at least this far from the estimate."""
SURE = 2.0
"""Standard errors by which an estimate must have passed a threshold for the bets to aim at the next one."""
NEWTON = 4
KEPT = ("counts", "lowest", "highest")
"""What makes the answers; all else follows from it."""


@dataclass(frozen=True)
class Within:
    """Delta to within +- `half_width` (0.01: one point)."""

    half_width: float

    def __post_init__(self) -> None:
        if not 0 < self.half_width < 1:
            raise UseError(f"a half width of {self.half_width}; it must lie between 0 and 1, for one point say 0.01")

    def distances(self, estimate: Array, error: Array) -> tuple[Array, Array]:
        """How far below and above the estimate, which has this standard error, the bounds are wanted."""
        aim = np.full_like(estimate, self.half_width)
        return aim, aim

    def settled(self, low: Array, high: Array) -> Array:
        """Which cells are answered by these bounds of Delta."""
        return high - low <= 2 * self.half_width * (1 + 1e-12)


@dataclass(frozen=True)
class Decide:
    """Ambient, critical or destroyed, as in `analyses.verdicts.verdict`: is Delta below or above `ambient` x `gap`, and
    is it above `destroyed` x `gap`? `destroyed=math.inf` asks for ambient or critical only."""

    gap: float
    ambient: float = 0.1
    destroyed: float = 0.5

    def __post_init__(self) -> None:
        if not self.gap > 0:
            raise UseError(
                f"a gap of {self.gap}: chance error minus unmodified error must be above 0 to decide anything"
            )
        if not 0 < self.ambient < self.destroyed:
            raise UseError(f"ambient={self.ambient}, destroyed={self.destroyed}; 0 < ambient < destroyed must hold")

    @property
    def thresholds(self) -> tuple[float, float]:
        return self.ambient * self.gap, self.destroyed * self.gap

    def distances(self, estimate: Array, error: Array) -> tuple[Array, Array]:
        """How far below and above the estimate, which has this standard error, the thresholds in question are."""
        first, second = self.thresholds
        below = estimate - np.where(estimate + SURE * error > second, second, first)
        above = np.where(estimate - SURE * error > first, second, first) - estimate
        return np.clip(below, FINEST, 1), np.clip(above, FINEST, 1)

    def settled(self, low: Array, high: Array) -> Array:
        """Which cells are answered by these bounds of Delta: those where every value in them has the same verdict."""
        first, second = self.thresholds
        return ((high < first) | (low > first)) & ((high <= second) | (low > second))


@dataclass(frozen=True)
class Narrow:
    """Delta as closely as it can be known: settled by all samples alone, so that somebody else must say when to stop."""

    def distances(self, estimate: Array, error: Array) -> tuple[Array, Array]:
        """How far below and above the estimate, which has this standard error, the bounds are aimed at."""
        return AIM * error, AIM * error

    def settled(self, low: Array, high: Array) -> Array:
        """None, whatever the bounds."""
        return np.zeros(low.shape, dtype=bool)


Rule = Within | Decide | Narrow


@dataclass(frozen=True)
class Question:
    """What is asked of a map: of `cells` cells, on `right` + `wrong` samples (those that the unmodified network has right
    and wrong), with all answers true at once with probability `level`.

    Without pairing, say `right=N, wrong=0`: Delta is then the error itself.
    """

    right: int
    wrong: int
    cells: int
    rule: Rule
    level: float = 0.95

    def __post_init__(self) -> None:
        if min(self.right, self.wrong) < 0 or self.n < 1 or self.cells < 1:
            raise UseError(f"{self.right} right, {self.wrong} wrong samples, {self.cells} cells; one of each is needed")
        if not 0 < self.level < 1:
            raise UseError(f"a level of {self.level}; it must lie between 0 and 1, as 0.95")

    @property
    def n(self) -> int:
        """All samples."""
        return self.right + self.wrong

    @property
    def price(self) -> float:
        """Log of the capital at which a value of Delta is given up: each cell, and each side of it, has its share of the
        error probability (Bonferroni)."""
        return math.log(2 * self.cells / (1 - self.level))


@dataclass(frozen=True)
class Answers:
    """What is known of each cell so far.

    `counts` [cells, batches, 4]: samples of each batch that were right and stayed so, were made wrong, were wrong and
    stayed so, were put right; all zero once a cell is no longer open. `lowest`, `highest` [cells]: bounds of N Delta.
    `bets` are those on the open cells so far; without them they are made again from the counts.
    """

    question: Question
    counts: Array
    lowest: Array
    highest: Array
    bets: "_Bets | None" = None

    @classmethod
    def of(cls, question: Question, some: int | None = None) -> "Answers":
        """Nothing known yet: of all cells, or of `some` that are followed together."""
        cells = question.cells if some is None else some
        lowest, highest = np.full(cells, -question.wrong), np.full(cells, question.right)
        return cls(question, np.zeros((cells, 0, 4), dtype=np.int64), lowest, highest)

    @classmethod
    def joined(cls, some: Sequence["Answers"]) -> "Answers":
        """What is known of cells, one each, that have seen the same batches."""
        counts, lowest, highest = (np.concatenate([getattr(one, name) for one in some]) for name in KEPT)
        return cls(some[0].question, counts, lowest, highest)

    def cell(self, i: int) -> "Answers":
        """What is known of one cell."""
        one = slice(i, i + 1)
        return Answers(self.question, self.counts[one], self.lowest[one], self.highest[one])

    @property
    def low(self) -> Array:
        """Lower bounds of Delta, [cells]."""
        return self.lowest / self.question.n

    @property
    def high(self) -> Array:
        """Upper bounds of Delta, [cells]."""
        return self.highest / self.question.n

    @property
    def n(self) -> Array:
        """Samples used, [cells]."""
        return self.counts.sum(axis=(1, 2))

    @property
    def open(self) -> Array:
        """Which cells need more samples, [cells]: at least some, for a first estimate."""
        n = self.n
        return (~self.question.rule.settled(self.low, self.high) | (n == 0)) & (n < self.question.n)

    @property
    def estimate(self) -> Array:
        """Delta, estimated: the shares seen among the right and among the wrong samples, for all of them; [cells]."""
        seen = self.counts.sum(axis=1)
        worse, better = (seen[:, j] / np.maximum(seen[:, j - 1] + seen[:, j], 1) for j in (1, 3))
        found = (self.question.right * worse - self.question.wrong * better) / self.question.n
        return np.clip(found, self.low, self.high)

    def after(self, right: Array | int, wrong: Array | int, worse: Array, better: Array) -> "Answers":
        """What is known after the next batch of the common order, which has `right` and `wrong` samples (by the unmodified
        network), of which each *open* cell made `worse` wrong and put `better` right; both [open cells]."""
        which, more = self.open, np.zeros((len(self.counts), 1, 4), dtype=np.int64)
        more[which, 0] = np.stack(np.broadcast_arrays(right - worse, worse, wrong - better, better), axis=-1)
        grown = replace(self, counts=np.concatenate([self.counts, more], axis=1))
        grown._check()
        return grown._narrowed(which)

    def _check(self) -> None:
        if self.counts.min(initial=0) < 0:
            raise UseError("a batch with more changed outcomes than samples; each count must lie within its batch")
        seen = self.counts.sum(axis=1)
        if (seen[:, :2].sum(1) > self.question.right).any() or (seen[:, 2:].sum(1) > self.question.wrong).any():
            raise UseError(
                f"more samples than the {self.question.right} right and {self.question.wrong} wrong ones asked of"
            )

    def _narrowed(self, which: Array) -> "Answers":
        """With the bounds of these cells moved in as far as the bets allow: never out again."""
        lowest, highest = self._sure(which)
        bets = _bets(self.counts[which], self.question, self.bets)
        top = _edge(bets, UPPER, lowest, highest)
        bottom = _edge(bets, LOWER, top, lowest)
        new = replace(self, lowest=self.lowest.copy(), highest=self.highest.copy())
        new.lowest[which], new.highest[which] = bottom, top
        return replace(new, bets=bets.of(new.open[which]))

    def _sure(self, which: Array) -> tuple[Array, Array]:
        """The bounds so far, within what the samples not yet seen can still change: exact once there are none."""
        right, worse, wrong, better = self.counts[which].sum(axis=1).T
        net = worse - better
        least = net - (self.question.wrong - wrong - better)
        most = net + (self.question.right - right - worse)
        return np.clip(self.lowest[which], least, most), np.clip(self.highest[which], least, most)

    def state(self) -> dict[str, Any]:
        """What to keep to go on later, of plain lists."""
        return {name: getattr(self, name).tolist() for name in KEPT}

    @classmethod
    def resumed(cls, question: Question, state: Mapping[str, Sequence[Any]], some: int | None = None) -> "Answers":
        """Goes on from a `state` of the same question: of all cells, or of `some`."""
        fresh = cls.of(question, some)
        counts = np.asarray(state["counts"], dtype=np.int64).reshape(len(fresh.lowest), -1, 4)
        lowest, highest = (np.asarray(state[name], dtype=np.int64) for name in ("lowest", "highest"))
        if not lowest.shape == highest.shape == fresh.lowest.shape:
            raise UseError(f"a state of {len(lowest)} cells; the question has {len(fresh.lowest)}")
        again = cls(question, counts, lowest, highest)
        again._check()
        return again


@dataclass(frozen=True)
class _Bets:
    """A bet a batch, for every cell; each is made knowing earlier batches only. [cells, batches], `values` and `counts` with
    a first axis of the four outcomes: first, because operations along four numbers are slow."""

    counts: Array
    net: Array  # Delta's numerator, of the earlier batches
    rest: Array  # samples from this batch on
    values: Array  # of the four outcomes: change, less what the unmodified network's outcome foretold
    lower: Array  # stakes
    upper: Array
    price: float

    def log_capital(self, side: int, total: Array) -> Array:
        """What the bets against N Delta = `total` [cells] have made of 1: were that the truth, at most 1 on average, so
        1/x of it or more with probability x at most, at any time (Ville)."""
        gains = side * (self.values - (total[:, None] - self.net) / self.rest)
        worst = np.maximum(-gains.min(axis=0), 1e-12)
        stake = np.minimum(self.lower if side == LOWER else self.upper, STAKE / worst)
        return (self.counts * np.log1p(stake * gains)).sum(axis=(0, 2))

    def of(self, which: Array) -> "_Bets":
        """The bets on some of the cells."""
        return self._each(lambda array: array[..., which, :])

    def then(self, later: "_Bets") -> "_Bets":
        """These bets and later ones, on the same cells."""
        return self._each(lambda array, more: np.concatenate([array, more], axis=-1), later)

    def _each(self, change: Callable[..., Array], *others: "_Bets") -> "_Bets":
        names = ("counts", "net", "rest", "values", "lower", "upper")
        return replace(self, **{name: change(*(getattr(bets, name) for bets in (self, *others))) for name in names})


def _bets(counts: Array, question: Question, before: _Bets | None = None) -> _Bets:
    """The bets, each from the batches before its own; those on the first batches may be there from `before`."""
    made = 0 if before is None else before.net.shape[1]
    counts = np.ascontiguousarray(np.moveaxis(counts, -1, 0))
    past = (np.cumsum(counts, axis=-1) - counts)[..., made:]
    kept, worse, still, better = past
    right, wrong = question.right - kept - worse, question.wrong - still - better
    rest = np.maximum(right + wrong, 1)
    share = right / rest
    p = (worse + GUESS * WEIGHT) / (kept + worse + WEIGHT)
    q = (better + GUESS * WEIGHT) / (still + better + WEIGHT)
    base = (p + q) * (share - 1)
    values = np.stack([base, base + 1, base + p + q, base + p + q - 1])
    chances = np.stack([share * (1 - p), share * p, (1 - share) * (1 - q), (1 - share) * q])
    net = worse - better
    lower, upper = _stakes(values, chances, net, rest, question)
    bets = _Bets(counts[..., made:], net, rest, values, lower, upper, question.price)
    return bets if before is None else before.then(bets)


def _stakes(values: Array, chances: Array, net: Array, rest: Array, question: Question) -> tuple[Array, Array]:
    """What to stake for the lower and the upper bound: for a Delta as far off as the bound is wanted, the samples still to
    come are off by more."""
    mean = (chances * values).sum(0)
    variance = (chances * (values - mean) ** 2).sum(0)
    error = np.sqrt(variance * rest / question.n / (question.n - rest + WEIGHT))
    below, above = question.rule.distances((net + rest * mean) / question.n, error)
    centred, more = values - mean, question.n / rest
    return _kelly(centred + below * more, chances), _kelly(above * more - centred, chances)


def _kelly(gains: Array, chances: Array) -> Array:
    """The stake whose capital grows fastest: the maximum of E log(1 + stake x gain), by Newton's method."""
    most = STAKE / np.maximum(-gains.min(axis=0), 1e-12)
    stake = np.minimum((chances * gains).sum(0) / (chances * gains**2).sum(0), most)
    for _ in range(NEWTON):
        per = gains / (1 + stake * gains)
        stake = np.clip(stake + (chances * per).sum(0) / (chances * per**2).sum(0), 0, most)
    return stake


def _edge(bets: _Bets, side: int, kept: Array, end: Array) -> Array:
    """The last total from `kept` to `end` that is not given up, by bisection; [cells]."""
    kept, refused = kept.copy(), end - side
    while (wide := np.abs(refused - kept) > 1).any():
        middle = (kept + refused) // 2
        no = bets.log_capital(side, middle) >= bets.price
        refused, kept = np.where(wide & no, middle, refused), np.where(wide & ~no, middle, kept)
    return kept


def looks(n: int, first: int = 64, growth: float = 1.05) -> list[int]:
    """After how many of `n` samples to look: often enough to stop early, seldom enough to cost nothing."""
    if first < 1 or not growth > 1:
        raise UseError(f"first={first}, growth={growth}; the first look needs a sample, and growth must be above 1")
    ends = [min(first, n)]
    while ends[-1] < n:
        ends.append(min(n, max(ends[-1] + 1, int(ends[-1] * growth))))
    return ends


@dataclass(frozen=True)
class Replay:
    """How a map with known outcomes would have been answered: samples used, bounds, the truth, and whether the bounds
    covered it at every look; all [cells]."""

    n: Array
    low: Array
    high: Array
    truth: Array
    covered: Array


def replay(outcomes: Array, reference: Array, rule: Rule, seed: int, level: float = 0.95) -> Replay:
    """Answers a map from its known errors (`outcomes` [cells, N] of the cells, `reference` [N] of the unmodified network,
    True where wrong) in a random order of the samples."""
    outcomes, reference = np.asarray(outcomes, dtype=bool), np.asarray(reference, dtype=bool)
    cells, n = outcomes.shape
    if reference.shape != (n,):
        raise UseError(f"outcomes of {n} samples and a reference of {len(reference)}; both must be of the same samples")
    order = np.random.default_rng(seed).permutation(n)
    answers = Answers.of(Question(int((~reference).sum()), int(reference.sum()), cells, rule, level))
    truth = (outcomes & ~reference).sum(1) - (~outcomes & reference).sum(1)
    covered, ends = np.ones(cells, dtype=bool), looks(n)
    for batch in np.split(order, ends[:-1]):
        was = reference[batch]
        now = outcomes[np.ix_(answers.open, batch)]
        answers = answers.after(int((~was).sum()), int(was.sum()), (now & ~was).sum(1), (~now & was).sum(1))
        covered &= (answers.lowest <= truth) & (truth <= answers.highest)
        if not answers.open.any():
            break
    return Replay(answers.n, answers.low, answers.high, truth / n, covered)


def needed(question: Question, worse: int, better: int) -> int:
    """The sample-size bound: how many samples settle a cell that makes `worse` of all right samples wrong and puts `better`
    of the wrong ones right, for one who knows when to look.

    The smallest n at which the exact interval of a *fixed* n (at the cell's share of the level), on a sample with the
    shares of the population, settles the rule. A bound of it is the last Delta at which an estimate as far off has the
    tail probability asked for (hypergeometric), the two kinds of change being as frequent as is likeliest for that Delta:
    a real procedure must also guard against the unlikely. Sum it over the cells of a map.
    """
    few, enough = 0, question.n
    while enough - few > 1:
        middle = (few + enough) // 2
        if question.rule.settled(*_fixed(question, worse, better, middle)).all():
            enough = middle
        else:
            few = middle
    return enough


def _fixed(question: Question, worse: int, better: int, n: int) -> tuple[Array, Array]:
    """Bounds of Delta from a sample of a fixed size with exactly the population's shares."""
    ends = {LOWER: -question.wrong, UPPER: question.right}
    found = []
    for side in (LOWER, UPPER):
        kept, refused = worse - better, ends[side] - side
        while abs(refused - kept) > 1:
            middle = (kept + refused) // 2
            if _tail(question, worse, better, n, middle, side) <= -question.price:
                refused = middle
            else:
                kept = middle
        found.append(np.array([kept / question.n]))
    return found[0], found[1]


def _tail(question: Question, worse: int, better: int, n: int, total: int, side: int) -> float:
    """Log probability of an estimate at least as far from `total` as that from the population's shares, were N Delta
    `total`."""
    right = round(n * question.right / question.n)
    wrong = n - right
    if (question.right and not right) or (question.wrong and not wrong):
        return 0.0
    each, other = question.right / max(right, 1), question.wrong / max(wrong, 1)
    seen, put = round(worse / each) if each else 0, round(better / other) if other else 0
    better = _nearest(question, seen / max(right, 1), put / max(wrong, 1), total)
    a, mass_a = _hypergeometric(question.right, total + better, right)
    b, mass_b = _hypergeometric(question.wrong, better, wrong)
    reach = side * (each * seen + other * (b - put))
    far = len(a) - np.searchsorted(np.sort(side * each * a), reach - 1e-9)  # so many a, from the end the tail is at
    beyond = np.concatenate([[0.0], np.cumsum(mass_a[::-side])])[far]
    return math.log(max(float((mass_b * beyond).sum()), 1e-300))


def _nearest(question: Question, worse: float, better: float, total: int) -> int:
    """How many of the wrong samples are put right, were N Delta `total`: the likeliest number for these shares seen."""
    low, high = max(0, -total), min(question.wrong, question.right - total)
    while low < high:
        middle = (low + high) // 2
        p, q = (total + middle + 0.5) / (question.right + 1), (middle + 0.5) / (question.wrong + 1)
        pull = (worse - p) / (p * (1 - p)) if question.right else 0.0
        pull += (better - q) / (q * (1 - q)) if question.wrong else 0.0
        low, high = (middle + 1, high) if pull > 0 else (low, middle)
    return low


def _hypergeometric(population: int, marked: int, drawn: int) -> tuple[Array, Array]:
    """The numbers of marked samples that can be drawn, and their probabilities."""
    from scipy.special import gammaln

    k = np.arange(max(0, drawn - population + marked), min(drawn, marked) + 1)
    choose = lambda n, k: gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)  # noqa: E731
    return k, np.exp(choose(marked, k) + choose(population - marked, drawn - k) - choose(population, drawn))
