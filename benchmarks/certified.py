"""G2: samples that certified answers take, and whether they are true: every case over 500 reshuffles.

Real maps: `LAYERSCOPE_OUTCOMES=a.npz:b.npz`, each with `outcomes` [cells, N] and `reference` [N] (True where wrong).
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.frame import Result
from layerscope.sequential import Answers, Decide, Question, Rule, Within, looks, needed

SHUFFLES = 500
CELLS = 2_000
"""Of the map that a single case is taken from: it has its share of the level."""
POINT = Within(0.01)
GAP = 0.85
"""Ten classes, an unmodified error of 5 %."""
AMBIENT = Decide(GAP, destroyed=math.inf)


@dataclass(frozen=True)
class Map:
    """A map with known outcomes: `changed` [cells, N] against the unmodified network, which is wrong on `reference` [N]."""

    what: str
    changed: np.ndarray
    reference: np.ndarray

    @property
    def worse(self) -> np.ndarray:
        return (self.changed & ~self.reference).sum(1)

    @property
    def better(self) -> np.ndarray:
        return (self.changed & self.reference).sum(1)

    @property
    def total(self) -> np.ndarray:
        return self.worse - self.better

    def question(self, rule: Rule, cells: int) -> Question:
        return Question(int((~self.reference).sum()), int(self.reference.sum()), cells, rule)

    def unpaired(self) -> "Map":
        """With errors in place of changes, against a network that is always right."""
        return Map(self.what, self.changed ^ self.reference, np.zeros_like(self.reference))

    def batches(self, ends: Sequence[int], seed: int) -> np.ndarray:
        """Counts of each batch in a random order, [cells, batches, 4]."""
        order = np.random.default_rng(seed).permutation(len(self.reference))
        kinds = (2 * self.reference + self.changed)[:, order]
        starts = [0, *ends[:-1]]
        return np.stack([np.add.reduceat(kinds == kind, starts, axis=1, dtype=np.int64) for kind in range(4)], axis=-1)


@dataclass(frozen=True)
class Measured:
    """Of all reshuffles of a map, [shuffles, cells]: samples used, bounds of N Delta, whether these ever missed it."""

    n: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    missed: np.ndarray


def measure(case: Map, rule: Rule, cells: int = CELLS, shuffles: int = SHUFFLES, growth: float = 1.05) -> Measured:
    """All reshuffles side by side, as so many cells of one map."""
    ends, question = looks(len(case.reference), growth=growth), case.question(rule, cells)
    counts = np.concatenate([case.batches(ends, seed) for seed in range(shuffles)])
    answers = Answers.of(Question(question.right, question.wrong, len(counts), rule))
    answers = Answers(question, answers.counts, answers.lowest, answers.highest)
    total, missed = np.tile(case.total, shuffles), np.zeros(len(counts), dtype=bool)
    for batch in np.moveaxis(counts, 1, 0):
        right, worse, wrong, better = batch[answers.open].T
        answers = answers.after(right + worse, wrong + better, worse, better)
        missed |= (total < answers.lowest) | (total > answers.highest)
        if not answers.open.any():
            break
    shape = (shuffles, len(case.changed))
    return Measured(*(a.reshape(shape) for a in (answers.n, answers.lowest, answers.highest, missed)))


def made(n: int, wrong: float, *shares: tuple[float, float], what: str = "") -> Map:
    """A map whose cells make a share of the right samples wrong and put a share of the wrong ones right."""
    reference = np.arange(n) < round(n * wrong)
    changed = np.zeros((len(shares), n), dtype=bool)
    for row, (worse, better) in zip(changed, shares, strict=True):
        row[: round(better * reference.sum())] = True
        row[n - round(worse * (~reference).sum()) :] = True
    return Map(what, changed, reference)


def run() -> list[Result]:
    maps = [mixed(n) for n in (10_000, 50_000)] + real()
    return [
        *(point(made(n, *case)) for n in (1_000, 10_000, 50_000) for case in SINGLE),
        *(whole(case, POINT, 0.7) for case in maps),
        *(whole(case, AMBIENT, 0.0) for case in maps),
        *(coverage(n, case) for n in (1_000, 10_000) for case in SINGLE),
        *(boundary(n, beyond) for n in (1_000, 10_000) for beyond in (-1, 0, 1)),
    ]


SINGLE = [(0.05, (0.001, 0.0)), (0.05, (0.02, 0.1)), (0.05, (0.5, 0.5)), (0.002, (0.02, 0.5)), (0.3, (0.02, 0.04))]


def point(case: Map) -> Result:
    """One cell to one point: samples against the bound of a fixed number, both paired."""
    found, n = measure(case, POINT, shuffles=50), len(case.reference)
    used, errors = found.n.mean(), measure(case.unpaired(), POINT, shuffles=10).n.mean()
    bound = needed(case.question(POINT, CELLS), int(case.worse[0]), int(case.better[0]))
    return Result(
        f"+-1 point, {shares(case)}",
        f"{used:.0f} samples, {bound / used:.0%} of the bound {bound}",
        f"all: {n / used:.1f}x; unpaired {errors:.0f} samples",
        ">= 70 % of the bound",
        bound / used >= 0.7,
        50,
    )


def whole(case: Map, rule: Rule, goal: float) -> Result:
    """A map: samples of all its cells, and how often anything at all that was said of it was untrue."""
    shuffles = max(10, min(SHUFFLES, 20_000 // len(case.changed)))
    found, n = measure(case, rule, len(case.changed), shuffles, growth=1.1), len(case.reference)
    question = case.question(rule, len(case.changed))
    used = found.n.sum(1).mean()
    bound = sum(needed(question, int(w), int(b)) for w, b in zip(case.worse, case.better, strict=True))
    asked = "+-1 point" if rule is POINT else "ambient or critical"
    times, untrue = n * len(case.changed) / used, found.missed.any(1).mean()
    least = 5 if n < 50_000 else 20
    return Result(
        f"{asked}: {case.what}, {len(case.changed)} cells, N = {n}",
        f"{used / len(case.changed):.0f} samples a cell, {bound / used:.0%} of the bound; untrue in {untrue:.1%}",
        f"all: {times:.1f}x",
        f"{f'>= {goal:.0%} of the bound' if goal else f'>= {least}x'}; untrue <= 5 %",
        untrue <= 0.05 and (bound / used >= goal if goal else times >= least),
        shuffles,
    )


def coverage(n: int, case: tuple) -> Result:
    """One cell with the whole 5 % to itself, where a flaw of the method would show."""
    single = made(n, *case)
    missed = measure(single, POINT, cells=1, growth=1.1).missed.mean()
    return truth(f"bounds at all looks, one cell, {shares(single)}", missed)


def boundary(n: int, beyond: int) -> Result:
    """A cell at the threshold, or one sample off, decided for the wrong side (any side, at it)."""
    reference = np.arange(n) < n // 20
    changed = np.zeros((1, n), dtype=bool)
    changed[0, n - n // 10 - beyond :] = True
    found = measure(Map("", changed, reference), Decide(1.0, destroyed=math.inf), cells=1, growth=1.1)
    below, above = found.highest < n // 10, found.lowest > n // 10
    wrong = {-1: above, 0: above | below, 1: below}[beyond]
    return truth(f"decided wrongly, one cell {beyond:+d} samples from the threshold, N = {n}", wrong.mean())


def truth(what: str, untrue: float) -> Result:
    return Result(what, f"untrue in {untrue:.1%}", "-", "<= 5 %", untrue <= 0.05, SHUFFLES)


def mixed(n: int) -> Map:
    """As maps are: most cells change little, some are destroyed, few lie between."""
    rng = np.random.default_rng(0)
    little = [(x, 5 * x) for x in rng.exponential(0.006, 28)]
    between = [(x, 0.1) for x in rng.uniform(0.02, 0.4, 6)]
    gone = [(x, 0.1) for x in rng.uniform(0.5, 0.9, 6)]
    return made(n, 0.05, *little, *between, *gone, what="made up: 70 % ambient")


def real() -> list[Map]:
    paths = [Path(name) for name in os.environ.get("LAYERSCOPE_OUTCOMES", "").split(":") if name]
    return [loaded(path) for path in paths]


def loaded(path: Path) -> Map:
    with np.load(path, allow_pickle=False) as file:
        reference = file["reference"].astype(bool)
        return Map(path.stem, file["outcomes"].astype(bool) ^ reference, reference)


def shares(case: Map) -> str:
    wrong = case.reference.sum()
    worse = case.worse[0] / max(len(case.reference) - wrong, 1)
    return f"N = {len(case.reference)}, {wrong} wrong; {worse:.1%} made wrong, {case.better[0] / max(wrong, 1):.0%} put right"
