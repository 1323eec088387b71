"""What a reproduction is: claims as data, scales, and the verdict on a claim from what its runs gave. Never imports torch."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from layerscope import stats
from layerscope.errors import UseError
from layerscope.spec import Spec
from layerscope.table import Table
from layerscope.training.spec import TrainSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from layerscope.plots.weights import Listing

MINIMUM_RUNS = 5
"""Fewer training runs than this decide no claim about training."""
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Replicate:
    """What the networks of one seed gave: the table of each analysis of each network, by their names in the scale."""

    tables: Mapping[tuple[str, str], Table]

    def table(self, analysis: str = "", network: str = "") -> Table:
        """The table of an analysis of a network; either may be left out where there is only one."""
        found = [t for (n, a), t in self.tables.items() if network in ("", n) and analysis in ("", a)]
        if len(found) != 1:
            raise ValueError(f"{len(found)} tables are of analysis {analysis!r} of network {network!r}")
        return found[0]

    @property
    def networks(self) -> list[str]:
        return list(dict.fromkeys(network for network, _ in self.tables))


class Estimate(NamedTuple):
    """A statistic over all networks of a study, with an interval of its own; `reason` says why it decides nothing."""

    value: float
    low: float
    high: float
    n: int
    reason: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, its statistic and threshold, written down before its first run at small scale.

    `per_run` gives the statistic of one seed, and its interval is Student's over seeds. Where that will not do, `overall` gives
    statistic and interval of all seeds at once; `over` says what they are over: runs, or networks. `networks` are those that the
    claim is about, of which none may be undertrained; all, if none is named.
    """

    id: str
    text: str
    statistic: str
    unit: str
    relation: Literal["above", "below"]
    threshold: float
    per_run: Callable[[Replicate], float] | None = None
    overall: Callable[[Sequence[Replicate]], Estimate] | None = None
    over: str = "runs"
    networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """How a study is run at one scale: the same code with other specs. Each of the networks is trained with each seed, and
    has all of the analyses. With `lean`, seeds but the first only replicate the claims, from start and end."""

    networks: Mapping[str, TrainSpec]
    analyses: Mapping[str, Spec]
    seeds: int
    about: str
    lean: bool = False


@dataclass(frozen=True)
class Study:
    """A figure or table of a paper with its claims. `floor` is the training error above which a network is undertrained;
    `figures` makes pictures of all replicates, by name, and `listings` tables of text."""

    id: str
    title: str
    source: str
    claims: tuple[Claim, ...]
    scales: Mapping[str, Scale]
    floor: float = 0.05
    figures: Callable[[Sequence[Replicate]], "dict[str, Figure]"] = field(default=lambda _: {})
    listings: Callable[[Sequence[Replicate]], "list[Listing]"] = field(default=lambda _: [])
    note: str = ""

    def scale(self, name: str) -> Scale:
        """A scale by name; an unknown one is an error that names those there are."""
        if name not in self.scales:
            raise UseError(f"{self.id} has no scale {name!r}; there are {', '.join(self.scales)}")
        return self.scales[name]


def judge(study: Study, replicates: Sequence[Replicate]) -> Table:
    """A row for each claim: its statistic with a 95 % interval, and the verdict. Of a claim about single seeds these are the
    mean over seeds and Student's t interval.

    `holds` if the whole interval lies beyond the threshold, `does not hold` if it lies on the other side, else
    `inconclusive`; so too with fewer than five runs, or if a network is undertrained.
    """
    errors = _errors(replicates)
    rows = [_row(claim, replicates, study.floor) for claim in study.claims]
    claims = {claim.id: _described(claim) for claim in study.claims}
    facts = {"study": study.id, "claims": claims, "runs": len(replicates), "floor": study.floor, "note": study.note}
    return Table.of(rows, facts | {"networks": len(errors), "training_error": max(errors, default=math.nan)})


def training_errors(replicate: Replicate) -> dict[str, float]:
    """The training error of each unmodified network, as a fraction; NaN if no analysis measured it."""
    found = dict.fromkeys(replicate.networks, math.nan)
    for (network, _), table in replicate.tables.items():
        if not math.isnan(error := training_error(table)):
            found[network] = error
    return found


def _errors(replicates: Sequence[Replicate], networks: Sequence[str] = ()) -> list[float]:
    """The training errors of the networks of these names, or of all."""
    found = [pair for replicate in replicates for pair in training_errors(replicate).items()]
    return [error for network, error in found if not networks or network in networks]


def training_error(table: Table) -> float:
    """The training error of the unmodified network of an analysis, as a fraction; NaN if it was not measured."""
    rows = table.where(metric="error", split="train")
    rows = rows.loc[rows["perturbation"].isin(["none", ""])]
    return float(rows["value"].iloc[0]) if len(rows) else float(table.provenance.get("error", math.nan))


def decide(claim: Claim, interval: stats.Interval) -> str:
    """The verdict that an interval allows."""
    low, high = interval
    sign = 1 if claim.relation == "above" else -1
    bounds = sorted((sign * (low - claim.threshold), sign * (high - claim.threshold)))
    if bounds[0] > 0:
        return "holds"
    return "does not hold" if bounds[1] < 0 else "inconclusive"


def _row(claim: Claim, replicates: Sequence[Replicate], floor: float) -> dict[str, Any]:
    found = claim.overall(replicates) if claim.overall is not None else _over_seeds(claim, replicates)
    row = {"metric": claim.id, "unit": claim.unit, "value": found.value, "n": found.n, "status": "ok"}
    if not math.isnan(found.low):
        row |= {"low": found.low, "high": found.high, "interval": "runs", "level": LEVEL}
    reason = found.reason
    if undertrained := [error for error in _errors(replicates, claim.networks) if not error <= floor]:
        reason = f"undertrained: training error up to {100 * max(undertrained):.1f} %, the floor is {100 * floor:g} %"
    verdict = "inconclusive" if reason else decide(claim, stats.Interval(found.low, found.high))
    return row | {"verdict": verdict, "reason": reason}


def _over_seeds(claim: Claim, replicates: Sequence[Replicate]) -> Estimate:
    assert claim.per_run is not None
    numbers = np.array([claim.per_run(replicate) for replicate in replicates])
    interval = stats.mean(numbers, LEVEL)
    return Estimate(float(numbers.mean()), interval.low, interval.high, len(numbers), _why_not(numbers))


def _why_not(numbers: np.ndarray) -> str:
    if not np.isfinite(numbers).all():
        return "the statistic is not defined for at least one run"
    return too_few(len(numbers))


def too_few(runs: int) -> str:
    """Why so many runs decide nothing; empty where they may."""
    return "" if runs >= MINIMUM_RUNS else f"{runs} run{'s' if runs > 1 else ''}; at least {MINIMUM_RUNS} are needed"


def _described(claim: Claim) -> dict[str, Any]:
    return {
        "text": claim.text,
        "statistic": claim.statistic,
        "relation": claim.relation,
        "threshold": claim.threshold,
        "unit": claim.unit,
        "over": "seeds" if claim.per_run is not None else claim.over,
    }
