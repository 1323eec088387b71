"""G2: samples that certified answers take, and whether they are true: every case over 500 reshuffles.

Real maps, as `benchmarks.outcomes` writes them: `LAYERSCOPE_OUTCOMES=a.npz:b.npz`. With these alone, and all that was found
as files in a folder: `python -m benchmarks.certified FOLDER`.
"""

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.frame import Result
from layerscope.analyses.verdicts import verdict
from layerscope.engine.certified import FIRST, GROWTH
from layerscope.sequential import Answers, Decide, Question, Rule, Within, looks, needed
from layerscope.stats import Interval, proportion

SHUFFLES = 500
ROWS = 20_000
"""Cells that are followed side by side: a matter of memory."""
CELLS = 2_000
"""Of the map that a single case is taken from: it has its share of the level."""
POINT = Within(0.01)
GAP = 0.85
"""Ten classes, an unmodified error of 5 %."""
AMBIENT = Decide(GAP, destroyed=math.inf)


@dataclass(frozen=True)
class Map:
    """A map with known outcomes: `changed` [cells, N] against the unmodified network, which is wrong on `reference` [N]; what
    its verdicts are (`decide`), and what its cells are called."""

    what: str
    changed: np.ndarray
    reference: np.ndarray
    decide: Decide = AMBIENT
    names: Sequence[str] = ()

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


def measure(
    case: Map, rule: Rule, cells: int = CELLS, shuffles: int = SHUFFLES, first: int = 64, growth: float = 1.05
) -> Measured:
    """Reshuffles 0, 1, ... of a map, as many side by side as there is room for."""
    question, ends = case.question(rule, cells), looks(len(case.reference), first, growth)
    together = max(1, ROWS // len(case.changed))
    seeds = [range(shuffles)[at : at + together] for at in range(0, shuffles, together)]
    found = [side_by_side(case, question, ends, some) for some in seeds]
    return Measured(*(np.concatenate([getattr(one, name) for one in found]) for name in Measured.__annotations__))


def side_by_side(case: Map, question: Question, ends: Sequence[int], seeds: range) -> Measured:
    """Reshuffles, as so many cells of one map."""
    counts = np.concatenate([case.batches(ends, seed) for seed in seeds])
    answers = Answers.of(question, some=len(counts))
    total, missed = np.tile(case.total, len(seeds)), np.zeros(len(counts), dtype=bool)
    for batch in np.moveaxis(counts, 1, 0):
        right, worse, wrong, better = batch[answers.open].T
        answers = answers.after(right + worse, wrong + better, worse, better)
        missed |= (total < answers.lowest) | (total > answers.highest)
        if not answers.open.any():
            break
    shape = (len(seeds), len(case.changed))
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
        *(whole(case, POINT) for case in maps),
        *(whole(case, case.decide) for case in maps),
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


def whole(case: Map, rule: Rule) -> Result:
    """A map: samples of all its cells, and how often anything at all that was said of it was untrue."""
    about = Replayed.of(case, rule).about()
    share, least = about["of_the_bound"], 5 if about["n"] < 50_000 else 20
    goal = ">= 70 % of the bound" if rule is POINT else f">= {least}x"
    reached = share >= 0.7 if rule is POINT else about["times"] >= least
    return Result(
        f"{about['asked']}: {case.what}, {about['cells']} cells, N = {about['n']}",
        f"{about['samples_a_cell']:.0f} samples a cell, {share:.0%} of the bound; untrue in {about['untrue']:.1%}",
        f"all: {about['times']:.1f}x",
        f"{goal}; untrue <= 5 %",
        about["untrue"] <= 0.05 and reached,
        SHUFFLES,
    )


@dataclass(frozen=True)
class Replayed:
    """A map in all reshuffles, at the looks of an analysis: what was found, the sample-size bound of each cell, and where the
    verdict was not that on all samples, [shuffles, cells] (nowhere, where none was asked for)."""

    case: Map
    rule: Rule
    found: Measured
    bound: np.ndarray
    wrong: np.ndarray

    @classmethod
    def of(cls, case: Map, rule: Rule) -> "Replayed":
        cells, n = case.changed.shape
        found = measure(case, rule, cells, first=FIRST, growth=GROWTH)
        question = case.question(rule, cells)
        bound = [needed(question, int(w), int(b)) for w, b in zip(case.worse, case.better, strict=True)]
        wrong = np.zeros_like(found.missed)
        if isinstance(rule, Decide):
            truth = case.total / n
            wrong = verdicts(rule, found.lowest / n, found.highest / n) != verdicts(rule, truth, truth)
        return cls(case, rule, found, np.array(bound), wrong)

    def about(self) -> dict[str, Any]:
        """Of the whole map. `times`: N x cells / samples; with the unmodified network, which is measured on all N, on both
        sides: `times_with_it`. `untrue`: share of the reshuffles in which any bound of any cell missed at any look."""
        shuffles, cells = self.found.n.shape
        n, used = len(self.case.reference), self.found.n.sum(1).mean()
        untrue = int(self.found.missed.any(1).sum())
        return {
            "map": self.case.what,
            "asked": "+-1 point" if isinstance(self.rule, Within) else "verdicts",
            "thresholds": self.rule.thresholds if isinstance(self.rule, Decide) else None,
            "n": n,
            "unmodified_error": float(self.case.reference.mean()),
            "cells": cells,
            "shuffles": shuffles,
            "samples_a_cell": used / cells,
            "times": n * cells / used,
            "times_with_it": n * (cells + 1) / (used + n),
            "bound_a_cell": float(self.bound.mean()),
            "of_the_bound": float(self.bound.sum() / used),
            "untrue": untrue / shuffles,
            "untrue_95": list(proportion(untrue, shuffles)),
            "untrue_cells": float(self.found.missed.mean()),
            "wrong_verdicts": float(self.wrong.any(1).mean()),
            "wrong_verdict_cells": float(self.wrong.mean()),
        }

    def by_cell(self) -> dict[str, np.ndarray]:
        """Of each cell: samples on average, the bound, and in how many reshuffles it was untrue or decided wrongly."""
        columns = {"samples": self.found.n.mean(0).round(1), "bound": self.bound, "untrue": self.found.missed.sum(0)}
        decided = {"wrong_verdict": self.wrong.sum(0)} if isinstance(self.rule, Decide) else {}
        asked = "decide" if decided else "point"
        return {f"{asked}_{name}": column for name, column in (columns | decided).items()}


def verdicts(rule: Decide, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What an analysis says of changes with these bounds."""
    said = lambda a, b: verdict(Interval(a, b), rule.gap, rule.ambient, rule.destroyed)  # noqa: E731
    return np.vectorize(said, otypes=[object])(low, high)


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
        decide = Decide(float(file["chance"]) - float(reference.mean()))
        return Map(path.stem, file["outcomes"].astype(bool) ^ reference, reference, decide, file["cells"].tolist())


def shares(case: Map) -> str:
    wrong = case.reference.sum()
    worse = case.worse[0] / max(len(case.reference) - wrong, 1)
    return f"N = {len(case.reference)}, {wrong} wrong; {worse:.1%} made wrong, {case.better[0] / max(wrong, 1):.0%} put right"


def keep(case: Map, folder: Path) -> None:
    """Replays a real map, and writes what was found of it (NAME.json) and of its cells (NAME.csv)."""
    both = [Replayed.of(case, rule) for rule in (POINT, case.decide)]
    cells = {"cell": case.names, "made_wrong": case.worse, "put_right": case.better}
    cells |= {name: column for one in both for name, column in one.by_cell().items()}
    pd.DataFrame(cells).to_csv(folder / f"{case.what}.csv", index=False)
    (folder / f"{case.what}.json").write_text(json.dumps([one.about() for one in both], indent=1) + "\n")


if __name__ == "__main__":
    for each in real():
        keep(each, Path(sys.argv[1]))
