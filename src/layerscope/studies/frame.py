"""What a reproduction is: claims as data, scales, and the verdict on a claim from one number a run. Never imports torch."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from layerscope import stats
from layerscope.analyses.spec import RobustnessSpec
from layerscope.errors import UseError
from layerscope.table import Table
from layerscope.training.spec import TrainSpec

MINIMUM_RUNS = 5
"""Fewer training runs than this decide no claim about training."""
LEVEL = 0.95


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, its statistic and threshold, written down before its first run at small scale.

    `per_run` gives the statistic of one training run from its analysis; runs with different seeds are the replicates.
    """

    id: str
    text: str
    statistic: str
    unit: str
    relation: Literal["above", "below"]
    threshold: float
    per_run: Callable[[Table], float]


@dataclass(frozen=True)
class Scale:
    """How a study is run at one scale: the same code with another spec."""

    training: TrainSpec
    analysis: RobustnessSpec
    seeds: int
    about: str


@dataclass(frozen=True)
class Study:
    """A figure or table of a paper with its claims. `floor` is the training error above which a network is undertrained."""

    id: str
    title: str
    source: str
    claims: tuple[Claim, ...]
    scales: Mapping[str, Scale]
    floor: float = 0.05

    def scale(self, name: str) -> Scale:
        """A scale by name; an unknown one is an error that names those there are."""
        if name not in self.scales:
            raise UseError(f"{self.id} has no scale {name!r}; there are {', '.join(self.scales)}")
        return self.scales[name]


def judge(study: Study, analyses: Sequence[Table]) -> Table:
    """A row for each claim: mean of its statistic over runs, 95 % interval over runs, and the verdict.

    `holds` if the whole interval lies beyond the threshold, `does not hold` if it lies on the other side, else
    `inconclusive`; so too with fewer than five runs, or if a network is undertrained.
    """
    undertrained = [error for error in map(training_error, analyses) if not error <= study.floor]
    rows = [
        _row(claim, [claim.per_run(table) for table in analyses], study.floor, undertrained) for claim in study.claims
    ]
    claims = {claim.id: _described(claim) for claim in study.claims}
    return Table.of(rows, {"study": study.id, "claims": claims, "runs": len(analyses), "floor": study.floor})


def training_error(table: Table) -> float:
    """The training error of the unmodified network of an analysis, as a fraction; NaN if it was not measured."""
    rows = table.where(perturbation="none", metric="error", split="train")
    return float(rows["value"].iloc[0]) if len(rows) else math.nan


def decide(claim: Claim, interval: stats.Interval) -> str:
    """The verdict that an interval over runs allows."""
    low, high = interval
    sign = 1 if claim.relation == "above" else -1
    bounds = sorted((sign * (low - claim.threshold), sign * (high - claim.threshold)))
    if bounds[0] > 0:
        return "holds"
    return "does not hold" if bounds[1] < 0 else "inconclusive"


def _row(claim: Claim, values: Sequence[float], floor: float, undertrained: Sequence[float]) -> dict[str, Any]:
    numbers = np.array(values)
    interval = stats.mean(numbers, LEVEL)
    row = {"metric": claim.id, "unit": claim.unit, "value": float(numbers.mean()), "n": len(numbers), "status": "ok"}
    if len(numbers) > 1:
        row |= {"low": interval.low, "high": interval.high, "interval": "runs", "level": LEVEL}
    reason = _why_not(numbers, floor, undertrained)
    return row | {"verdict": "inconclusive" if reason else decide(claim, interval), "reason": reason}


def _why_not(numbers: np.ndarray, floor: float, undertrained: Sequence[float]) -> str:
    if undertrained:
        return f"undertrained: training error up to {100 * max(undertrained):.1f} %, the floor is {100 * floor:g} %"
    if not np.isfinite(numbers).all():
        return "the statistic is not defined for at least one run"
    if len(numbers) < MINIMUM_RUNS:
        return f"{len(numbers)} run{'s' if len(numbers) > 1 else ''}; at least {MINIMUM_RUNS} are needed"
    return ""


def _described(claim: Claim) -> dict[str, Any]:
    return {
        "text": claim.text,
        "statistic": claim.statistic,
        "relation": claim.relation,
        "threshold": claim.threshold,
        "unit": claim.unit,
    }
