"""What an analysis found, as plain values for machines and for `--fail-if`. Never imports torch."""

import fnmatch
import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from layerscope.errors import UseError, unknown
from layerscope.partition import WHOLE
from layerscope.plots import words
from layerscope.plots.about import About
from layerscope.plots.grid import RANDOMISED
from layerscope.table import Table

NUMBERS = ("value", "error", "delta", "low", "high")
TEXTS = ("part", "verdict", "change")
WORDS = {"verdict": ("ambient", "critical", "destroyed", "undecided"), "change": ("reset", "rerandomize")}


def summary(table: Table) -> dict[str, Any]:
    """The unmodified network, and each Part put back to its start (`reset`) and re-randomised (mean over draws), on the
    test data: the deciding metric's value, change (`delta`) with interval, n and verdict.

    `metric`, `unit` and `better` (lower, higher) say what the numbers are; errors are fractions, and an entry then has its
    value as `error` too. A change is the changed network's value minus the unmodified one's, whichever way is better.
    """
    about, frame = About.of(table), table.where(split="test")
    units = [unit for unit in frame.loc[frame["metric"] == about.metric, "unit"] if isinstance(unit, str) and unit]
    return {
        "metric": about.metric,
        "unit": units[0] if units else "",
        "better": "higher" if about.higher else "lower",
        "unmodified": _numbers(frame.loc[frame["perturbation"] == "none"], about.metric, ""),
        "parts": [
            {"part": name, "change": change, **found}
            for name, rows in frame.groupby("part", sort=False)
            if name and name != WHOLE
            for change, found in _changes(rows, about.metric)
        ],
    }


def _changes(rows: Any, metric: str) -> Iterable[tuple[str, dict[str, Any]]]:
    if "step" in rows:
        reset = rows.loc[rows["step"].eq(0).fillna(False).astype(bool)]
        if len(reset):
            yield "reset", _numbers(reset, metric, "_delta")
    random = rows.loc[rows["perturbation"].isin(RANDOMISED)]
    if "draw" in rows and len(random := random.loc[random["draw"].isna()]):
        yield "rerandomize", _numbers(random, metric, "_delta")


def _numbers(rows: Any, metric: str, ending: str) -> dict[str, Any]:
    by_metric = {row["metric"]: row for row in rows.to_dict("records")}
    value, change = by_metric.get(metric), by_metric.get(f"{metric}{ending}")
    if value is None or change is None or value["status"] != "ok":
        return {"status": value["status"] if value else "not measured", "reason": value["reason"] if value else ""}
    found = {"value": value["value"], **({"error": value["value"]} if metric == "error" else {}), "n": int(value["n"])}
    bounds = {"low": change["low"], "high": change["high"], "interval": change["interval"], "level": change["level"]}
    if not ending:
        return found | bounds
    return found | {"delta": change["value"]} | bounds | {"verdict": change["verdict"]}


@dataclass(frozen=True)
class Condition:
    """Several comparisons that must all be true of a Part's change."""

    text: str
    fields: frozenset[str]
    places: tuple[Callable[[dict[str, Any]], bool], ...]
    tests: tuple[Callable[[dict[str, Any]], bool], ...]

    def failures(self, found: dict[str, Any]) -> list[dict[str, Any]]:
        """The entries of a summary for which the condition is true. A condition that could be true of none, because no
        layer has such a name or nothing was measured, is an error: it would never fail."""
        if "error" in self.fields and found["metric"] != "error":
            raise UseError(f"--fail-if {self.text!r}: this analysis measured {found['metric']}; write value, not error")
        meant = [entry for entry in found["parts"] if all(test(entry) for test in self.places)]
        if not meant:
            there = words.listed([f"{entry['part']} ({entry['change']})" for entry in found["parts"]], 12) or "nothing"
            raise UseError(f"--fail-if {self.text!r} means no layer that was measured; there is {there}")
        if unmeasured := [entry["part"] for entry in meant if not math.isfinite(entry.get("low", math.nan))]:
            raise UseError(f"--fail-if {self.text!r}: {unmeasured[0]} has no number with an interval")
        return [entry for entry in meant if all(test(entry) for test in self.tests)]


_COMPARISON = re.compile(r"\s*(\w+)\s*(>=|<=|=|>|<)\s*(\S+)\s*")
_OPERATORS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le, "=": operator.eq}


def condition(text: str) -> Condition:
    """The condition of a text such as `part=layer*, delta>0.02`: comparisons that must all be true.

    Fields: part (with * and ?), verdict, change (reset, rerandomize; reset if not given) with `=`; value, delta, low,
    high, in the metric's own unit (errors as fractions; for these `error` is `value`), with > >= < <= or =. `delta` is the
    point estimate; `low>0.02` asks that it is surely more.
    """
    comparisons = [_parsed(comparison, text) for comparison in text.split(",")]
    if not any(field == "change" for field, _, _ in comparisons):
        comparisons.append(("change", "=", "reset"))
    places = [_test(*c, text) for c in comparisons if c[0] in ("part", "change")]
    tests = [_test(*c, text) for c in comparisons if c[0] not in ("part", "change")]
    return Condition(text, frozenset(field for field, _, _ in comparisons), tuple(places), tuple(tests))


def _parsed(comparison: str, text: str) -> tuple[str, str, str]:
    match = _COMPARISON.fullmatch(comparison)
    if not match:
        raise UseError(
            f"cannot read {comparison.strip()!r} in --fail-if {text!r}; write for example part=fc, delta>0.02"
        )
    field, sign, value = match.groups()
    if field in WORDS and value not in WORDS[field]:
        raise unknown(f"{field} in --fail-if", value, WORDS[field])
    return field, sign, value


def _test(field: str, sign: str, value: str, text: str) -> Callable[[dict[str, Any]], bool]:
    if field in TEXTS and sign == "=":
        return lambda entry: fnmatch.fnmatchcase(entry.get(field, ""), value)
    if field not in NUMBERS:
        raise unknown("field in --fail-if", field, (*NUMBERS, *TEXTS))
    try:
        bound = float(value)
    except ValueError:
        raise UseError(f"{value!r} is not a number in --fail-if {text!r}") from None
    return lambda entry: field in entry and _OPERATORS[sign](entry[field], bound)
