"""The contest: which measure ranks networks as their generalisation error does."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from layerscope import ranking
from layerscope.analyses.spec import CompareSpec
from layerscope.errors import UseError, unknown
from layerscope.measures.catalogue import DIRECTION
from layerscope.plots import words
from layerscope.plots.grid import WHOLE, records
from layerscope.plots.means import SEED
from layerscope.ranking import BEST, ENOUGH, Resamples
from layerscope.table import Table

Row = dict[str, Any]
Hyper = Mapping[str, Mapping[str, Any]]
FEWEST = 3
"""Networks below which nothing can be ranked."""
OUTCOMES = ("generalisation_gap", "error", "cross_entropy")
"""What a network's table has beside measures."""
LACKING = "not applicable"
SEARCHED = ("pac_bayes", "pac_bayes_joint", "criticality")
"""Measures that rest on a search for what may be done to a network before its training error is above an eps."""
EDGE = "values lie at an end of what was searched"
ESTIMATED = "values are sums in which draws leave at least one module in doubt, so that an estimate decides"
FALLS = "values come with a warning that the error falls somewhere as noise grows, where search=sequential may miss the best"
ABOVE = "networks have a training error above eps, where this measure means little"
"""What there may be to know of the values of a measure, after "so many of so many"."""
_KEPT = (
    "part",
    "metric",
    "unit",
    "split",
    "value",
    "n",
    "low",
    "high",
    "interval",
    "level",
    "status",
    "reason",
    "engine",
    "eps",
)


def compare(tables: Mapping[str, Table], hyper: Hyper | None = None, spec: CompareSpec | None = None) -> Table:
    """Which measure ranks networks as their generalisation error does, and is its lead over the others more than luck?

    `tables` maps the name of each network to its measures (see `measure`); `hyper` to what it was trained with, such as
    {"a": {"width": 256, "seed": 0}, ...}; that one network lacks a setting counts as a value of it. Measures that fall as the
    gap should rise (margins, flatness) are turned, so that a tau of 1 always says: the same order as the target's.

    Rows, by `metric`: `tau`, Kendall's tau-b between a `measure` and the spec's target, over the `n` networks that have both,
    with those without in `reason`; `tau_difference`, how much larger it is for `measure` than for `measure_b`, over the
    networks that have both, of each pair, or of the spec's `against` and each other; where `measure_b` is `best other`, the
    lead over whichever ranks best (below 0: it is behind). With `hyper`, `tau_given`: the mean of taus within `groups` of
    networks that differ in that one hyperparameter only, and `tau_granulated`, its mean over hyperparameters other than the
    seed. Then the values themselves, as the tables have them. What there is to know of a measure's values (an end of what was
    searched, estimates, a training error above eps) is the `reason` of its `tau`; the table warns of networks that were trained
    with label noise, and of training errors above eps.

    Intervals are `runs`: over networks, as draws of a population of networks, each at `level` by itself; those of
    `tau_given` and `tau_granulated` over groups, with networks drawn anew for the same hyperparameters. A lead's is right
    whichever of the others is the best and, without `against`, whichever measure it turns out to be of. Of fewer than 9 networks
    there is none, but where all agree. What `status` is not ok has no value.

    Raises `UseError` for fewer than 3 networks with a target, or unknown measures.

    Source: chatterji2020, Sec. 4 (Kendall's tau); Jiang et al. 2020, Fantastic generalization measures, Sec. 2.2.2 (granulated
    coefficient). Differs from both: ties are corrected for (tau-b), and intervals are given. See docs/decisions/0020.
    """
    spec, hyper = spec or CompareSpec(), hyper or {}
    contest = Contest.of(tables, spec)
    measures, target, varying = contest.measures, contest.target, _varying(contest, hyper)
    resamples = Resamples(len(contest.runs), spec.resamples, spec.seed)
    drawn = {name: resamples.taus(values, target) for name, values in contest.values.items()}
    rows = [_tau(contest, name, resamples, drawn[name]) for name in measures]
    ranked = {row["measure"]: row["value"] for row in rows if "value" in row}
    rows += _differences(contest, ranked, resamples, drawn)
    rows += [row for name in ranked for row in _granulated(contest, name, hyper, varying)]
    facts = {
        "spec": spec.to_dict(),
        "networks": len(contest.runs),
        "measures": list(measures),
        "direction": {name: DIRECTION.get(name, 1) for name in measures},
        "hyper": {run: {name: hyper[run].get(name) for name in varying} for run in contest.runs},
        "left_out": contest.left_out,
        "warnings": _warnings(contest, ranked),
    }
    return Table.of([*rows, *contest.rows], facts)


def check(networks: int, which: Collection[str], spec: CompareSpec) -> None:
    """Refuse, before networks are measured, a comparison of too few, or by names that are not among the measures `which`."""
    if networks < FEWEST:
        raise UseError(f"{networks} networks are named; at least {FEWEST} are needed")
    if spec.target not in (*OUTCOMES, *which):
        raise unknown("target", spec.target, (*OUTCOMES, *which))
    _known(set(which), spec)


@dataclass(frozen=True)
class Contest:
    """Networks that have a target, their target [n], and their values of each measure [n], turned so that a larger one should
    mean a larger target; NaN where there is none. `rows` are those of the tables; `left_out` says what is not here, and why;
    `doubts` what there is to know of measures of each network, and `noisy` which were trained with label noise."""

    spec: CompareSpec
    runs: tuple[str, ...]
    target: np.ndarray
    values: Mapping[str, np.ndarray]
    rows: Sequence[Row]
    left_out: Mapping[str, str]
    doubts: Mapping[str, Mapping[str, Sequence[str]]]
    noisy: Sequence[str]

    @classmethod
    def of(cls, tables: Mapping[str, Table], spec: CompareSpec) -> "Contest":
        found = {run: _whole(run, table) for run, table in sorted(tables.items())}
        without = {run: _why(rows.get(spec.target), spec.target) for run, rows in found.items()}
        runs = tuple(run for run, reason in without.items() if not reason)
        left_out = {run: reason for run, reason in without.items() if reason}
        if len(runs) < FEWEST:
            said = "".join(f"; {run}: {reason}" for run, reason in left_out.items())
            raise UseError(
                f"{len(runs)} of {len(found)} networks have a {spec.target}; at least {FEWEST} are needed{said}"
            )
        measures, doubles = _asked({name for run in runs for name in found[run]}, spec)
        rows = [found[run][name] for run in runs for name in (spec.target, *measures) if name in found[run]]

        def column(name: str, sign: int) -> np.ndarray:
            return np.array([sign * _number(found[run].get(name)) for run in runs])

        values = {name: column(name, DIRECTION.get(name, 1)) for name in measures}
        doubts = {run: _doubts(tables[run], {name: found[run].get(name) for name in measures}) for run in runs}
        noisy = [run for run in runs if _has_noise(tables[run])]
        return cls(spec, runs, column(spec.target, 1), values, rows, left_out | doubles, doubts, noisy)

    @property
    def measures(self) -> tuple[str, ...]:
        return tuple(self.values)

    def known(self, *names: str) -> int:
        """How many networks have all of these measures."""
        return int(np.all([~np.isnan(self.values[name]) for name in names], axis=0).sum())

    def about(self, name: str) -> str:
        """What there is to know of the values of a measure: which are missing and why, and how many are in doubt."""
        by_run = {row["run"]: row for row in self.rows if row["metric"] == name}
        missing = [run for run, value in zip(self.runs, self.values[name], strict=True) if math.isnan(value)]
        why = "; ".join(f"{run}: {_why(by_run.get(run), name)}" for run in missing)
        said = [f"{len(missing)} of {len(self.runs)} networks left out ({why})"] if missing else []
        for doubt in (EDGE, ESTIMATED, FALLS, ABOVE):
            count = len(self.doubtful(name, doubt))
            said += [f"{count} of {len(self.runs)} {doubt}"] if count else []
        return "; ".join(said)

    def doubtful(self, name: str, doubt: str) -> list[str]:
        """The networks of whose measure this is to be said."""
        return [run for run in self.runs if doubt in self.doubts[run].get(name, ())]


def _whole(run: str, table: Table) -> dict[str, Row]:
    """The rows of a whole network, by metric; of errors those on test data."""
    found: dict[str, Row] = {}
    for row in records(table.where(part=WHOLE)):
        if row["metric"] in OUTCOMES and row["split"] not in ("", "test"):
            continue
        if row["metric"] in found:
            raise UseError(
                f"{run} has several values of {row['metric']}; choose the rows of one, such as those of one eps"
            )
        found[row["metric"]] = {"run": run, **{name: row[name] for name in _KEPT if row.get(name) is not None}}
    return found


def _doubts(table: Table, rows: Mapping[str, Row | None]) -> dict[str, list[str]]:
    """What there is to know of the values that a network's table has of each measure."""
    falls, error = table.provenance.get("monotonicity", {}).get("falls", ()), _training_error(table)
    found: dict[str, list[str]] = {}
    for name, row in rows.items():
        valued, searched = not math.isnan(_number(row)), name in SEARCHED
        said = {
            EDGE: valued and row is not None and row["status"] == "on the edge",
            ESTIMATED: valued and searched and _unsure(table, name),
            FALLS: valued and searched and any(fall["alpha"] == 1 or name != "pac_bayes" for fall in falls),
            ABOVE: searched and row is not None and error > row.get("eps", math.inf),
        }
        found[name] = [doubt for doubt, so in said.items() if so]
    return found


def _training_error(table: Table) -> float:
    values = table.where(part=WHOLE, metric="error", split="train")["value"]
    return float(values.iloc[0]) if len(values) else math.nan


def _unsure(table: Table, name: str) -> bool:
    """Whether draws leave a module's share of a measure in doubt: it has ends that are not the value itself, or none."""
    modules = (row for row in records(table.where(metric=name)) if row["part"] != WHOLE)
    return any(not row["low"] == row["value"] == row["high"] for row in modules)


def _has_noise(table: Table) -> bool:
    """Whether a network was trained with labels that noise had changed, so far as its table says."""
    noise = (table.provenance.get("data") or {}).get("noise") or {}
    return bool(table.provenance.get("changed_labels") or noise.get("differ"))


def _number(row: Row | None) -> float:
    return float(row.get("value", math.nan)) if row else math.nan


def _why(row: Row | None, name: str) -> str:
    """Why a network has no value; empty if it has one."""
    if row is None:
        return f"{name} was not measured"
    return (row.get("reason") or row["status"] or "no value") if math.isnan(_number(row)) else ""


def _asked(there: set[str], spec: CompareSpec) -> tuple[list[str], dict[str, str]]:
    """The measures to compare, and those that are not, with the reason."""
    known = _known(there, spec)
    if spec.measures:
        return list(spec.measures), {}
    doubles = {name: name.removeprefix("log_") for name in known if name.startswith("log_") and name[4:] in known}
    doubles = {name: other for name, other in doubles.items() if name != spec.against}
    left_out = {name: f"it ranks as {other} does" for name, other in doubles.items()}
    kept = [name for name in known if name not in doubles]
    return [name for name in kept if f"log_{name}" != spec.against], left_out


def _known(there: set[str], spec: CompareSpec) -> list[str]:
    """What is there to compare; an error if something else is asked for."""
    known = [name for name in DIRECTION if name in there - {spec.target}]
    known += sorted(there - {*known, *OUTCOMES, spec.target})
    for name in filter(None, (*spec.measures, spec.against)):
        if name not in known:
            raise unknown("measure", name, known)
    return known


def _tau(contest: Contest, name: str, resamples: Resamples, drawn: np.ndarray) -> Row:
    """How well a measure ranks."""
    known = contest.known(name)
    row: Row = {"metric": "tau", "measure": name, "n": known, "reason": contest.about(name)}
    if known < FEWEST:
        return row | {"status": LACKING}
    if not math.isfinite(drawn[0]):
        tied = f"its values or the targets of all {known} networks are equal"
        return row | {"status": LACKING, "reason": "; ".join(filter(None, (tied, row["reason"])))}
    return row | _estimate(resamples, drawn, known, contest.spec.level, 1.0)


def _estimate(resamples: Resamples, drawn: np.ndarray, networks: int, level: float, reach: float) -> Row:
    low, high = resamples.interval(drawn, networks, level, reach)
    return {"value": float(drawn[0]), **_interval(low, high, level), "status": "ok"}


def _interval(low: float, high: float, level: float) -> Row:
    """The interval, if there is one."""
    there = math.isfinite(low) and math.isfinite(high)
    return {"low": low, "high": high, "interval": "runs", "level": level} if there else {}


def _differences(
    contest: Contest, ranked: Mapping[str, float], resamples: Resamples, drawn: Mapping[str, np.ndarray]
) -> list[Row]:
    """By how much one measure ranks better than another, and the lead of one over all others."""
    spec = contest.spec
    if len(ranked) < 2 or (spec.against and spec.against not in ranked):
        return []

    def difference(a: str, b: str) -> np.ndarray:
        missing = np.isnan(contest.values[a]) != np.isnan(contest.values[b])
        if not missing.any():
            return drawn[a] - drawn[b]
        shared = np.where(np.isnan(contest.values[a]) | np.isnan(contest.values[b]), np.nan, contest.target)
        return resamples.taus(contest.values[a], shared) - resamples.taus(contest.values[b], shared)

    def row(a: str, b: str) -> Row:
        n, values = contest.known(a, b), difference(a, b)
        found: Row = {"metric": "tau_difference", "measure": a, "measure_b": b, "n": n}
        if not math.isfinite(values[0]):
            return found | {"status": LACKING, "reason": f"the {n} networks that have both values are too few to rank"}
        return found | _estimate(resamples, values, n, spec.level, 2.0)

    first = spec.against or max(ranked, key=lambda name: ranked[name])
    others = [name for name in ranked if name != first]
    pairs = [(first, other) for other in others] if spec.against else combinations(ranked, 2)
    shared = [(difference(first, other), contest.known(first, other)) for other in others]
    shared = [each for each in shared if math.isfinite(each[0][0])]
    lead: Row = {"metric": "tau_difference", "measure": first, "measure_b": BEST}
    if shared:
        lead |= {"value": float(min(values[0] for values, _ in shared)), "n": min(n for _, n in shared), "status": "ok"}
        firsts = 1 if spec.against else len(ranked)  # whichever of them ranks best might have been asked of
        lead |= _interval(*resamples.lead(shared, 1 - (1 - spec.level) / firsts), spec.level)
    else:
        lead |= {"status": LACKING, "reason": "no other measure shares enough networks with it to rank"}
    return [*(row(a, b) for a, b in pairs), lead]


def _varying(contest: Contest, hyper: Hyper) -> list[str]:
    """The hyperparameters in which the networks differ."""
    if not hyper:
        return []
    if lacking := [run for run in contest.runs if run not in hyper]:
        raise UseError(f"no hyperparameters of {', '.join(lacking)}; name those of all networks, or none")
    names = {name for run in contest.runs for name in hyper[run]}
    return [name for name in sorted(names) if len({_plain(hyper[run].get(name)) for run in contest.runs}) > 1]


def _plain(value: Any) -> Any:
    """A hyperparameter that can be looked up."""
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _granulated(contest: Contest, name: str, hyper: Hyper, varying: Sequence[str]) -> list[Row]:
    """How well a measure ranks networks that differ in one hyperparameter only: for each, and in the mean."""
    level, rows, found = contest.spec.level, [], []
    places = [tuple(_plain(hyper[run].get(each)) for each in varying) for run in contest.runs]
    common: Row = {"measure": name, "reason": "", "status": "ok"}
    for at, given in enumerate(varying):
        own, others = [place[at] for place in places], [place[:at] + place[at + 1 :] for place in places]
        groups = ranking.groups(contest.values[name], contest.target, own, others)
        taus, pairs = [group.tau for group in groups], sum(group.pairs for group in groups)
        row = common | {"metric": "tau_given", "given": given, "groups": len(groups), "pairs": pairs}
        if not groups:
            reason = f"no two networks that {name} and {contest.spec.target} rank differ in {given} only"
            rows.append(row | {"status": LACKING, "reason": reason})
            continue
        low, high = ranking.over_groups(taus, level)
        rows.append(row | {"value": float(np.mean(taus)), "n": len(groups), **_interval(low, high, level)})
        found += [taus] if given != SEED else []
    if found:
        ends = [ranking.over_groups(taus, 1 - (1 - level) / len(found)) for taus in found]
        low, high = (float(np.mean(end)) for end in zip(*ends, strict=True))
        mean = float(np.mean([np.mean(taus) for taus in found]))
        rows.append(
            common | {"metric": "tau_granulated", "value": mean, "n": len(found), **_interval(low, high, level)}
        )
    return rows


def _warnings(contest: Contest, ranked: Mapping[str, float]) -> list[str]:
    n = len(contest.runs)
    said = [f"of {n} networks only: two measures are seldom told apart by fewer than {ENOUGH}"] if n < ENOUGH else []
    said += [*_of_noise(contest), *_of_errors(contest)]
    said += ["no measure could rank these networks"] if not ranked else []
    if contest.spec.against and contest.spec.against not in ranked:
        said.append(f"{contest.spec.against} could not be compared with the others: it does not rank these networks")
    return said


def _of_noise(contest: Contest) -> list[str]:
    """What gaps are of, where networks were trained with label noise."""
    if not contest.noisy or contest.spec.target != "generalisation_gap":
        return []
    n, names = len(contest.runs), words.listed(contest.noisy)
    return [
        f"{len(contest.noisy)} of {n} networks were trained with label noise ({names}), and test labels have none: their "
        "generalisation gap is the error on clean test labels less the training error against changed ones. It is not that of "
        "one distribution, and may be below 0"
    ]


def _of_errors(contest: Contest) -> list[str]:
    """Networks that err more on their training data than a search may allow."""
    above = {name: contest.doubtful(name, ABOVE) for name in contest.measures}
    runs = [run for run in contest.runs if any(run in found for found in above.values())]
    if not runs:
        return []
    named = words.listed([name for name, found in above.items() if found])
    return [
        f"{len(runs)} of {len(contest.runs)} networks have a training error above the eps of {named} ({words.listed(runs)}): "
        "noise or a way back would have to make them better, and these measures mean little there"
    ]
