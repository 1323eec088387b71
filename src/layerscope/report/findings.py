"""What was found, in words computed from the table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerscope.plots import words
from layerscope.plots.grid import (
    RANDOM,
    WHOLE,
    Cell,
    Column,
    Grid,
    changed,
    has,
    layer_grid,
    records,
    unmodified,
)
from layerscope.table import Table

UNIT = "% error"
MARKS = {"ambient": "○", "critical": "●", "destroyed": "✕", "undecided": "?"}
"""Verdicts as signs that need no colour."""
_VERBS = {
    "ambient": ("is ambient", "are ambient"),
    "critical": ("is critical", "are critical"),
    "destroyed": ("destroys the network", "destroy the network"),
    "undecided": ("is undecided", "are undecided"),
}


@dataclass(frozen=True)
class Findings:
    """Three sentences, and the rule behind the verdicts."""

    sentences: list[str]
    rule: list[tuple[str, str]]
    random_draws: int


@dataclass(frozen=True)
class Change:
    """What one change of a Part did to the test error, as text."""

    error: str = "none"
    delta: str = "none"
    interval: str = "none"
    verdict: str = ""
    why: str = ""

    @property
    def mark(self) -> str:
        return MARKS.get(self.verdict, "–")


@dataclass(frozen=True)
class PartResult:
    """One row of the table of verdicts."""

    name: str
    parameters: str
    start: Change
    random: Change


def found(table: Table, spec: Mapping[str, Any]) -> Findings:
    """What an analysis found."""
    errors = layer_grid(table) if has(table, "error") else None
    deltas = changed(table)
    sentences = [_unmodified_sentence(table)]
    if errors is not None:
        sentences += [_start_sentence(errors, deltas), _random_sentence(errors, deltas)]
    return Findings(sentences, _rule(table, spec), errors.rests_on(True) if errors else 0)


def parts(table: Table) -> list[PartResult]:
    """The verdicts by Part."""
    errors, deltas = (layer_grid(table) if has(table, "error") else None), changed(table)
    if errors is None:
        return []
    sizes = _parameters(table)
    names = [name for name in errors.rows if name != WHOLE]
    return [
        PartResult(
            name,
            sizes.get(name, "unknown"),
            _change(errors, deltas, name, 0),
            _change(errors, deltas, name, RANDOM),
        )
        for name in names
    ]


def _change(errors: Grid, deltas: Grid | None, name: str, column: Column) -> Change:
    error = errors.at(name, column)
    if error.missing:
        return Change(why=error.missing)
    delta = deltas.at(name, column) if deltas else Cell(missing="not measured")
    return Change(
        words.number(error.value, UNIT),
        "none" if delta.missing else words.number(delta.value, "percentage points"),
        words.interval(delta, "percentage points") or "none",
        delta.verdict,
    )


def _parameters(table: Table) -> dict[str, str]:
    """How many numbers each Part has: what its distances rest on."""
    rows = records(table.where(metric="distance_l2"))
    return {row["part"]: words.count(row["n"]) for row in rows if row["n"]}


def _unmodified_sentence(table: Table) -> str:
    cell = unmodified(table)
    if cell.missing:
        return f"The error of the unmodified network is not known ({cell.missing})."
    within = f" ({words.level(cell)} interval {words.interval(cell, UNIT)} %)" if cell.has_interval else ""
    chance = 100 * table.provenance.get("chance", math.nan)
    guess = f" Guessing would get {chance:.4g} % wrong." if math.isfinite(chance) else ""
    number = words.number(cell.value, UNIT)
    return f"The trained network gets {number} % of {words.count(cell.n)} test samples wrong{within}.{guess}"


def _start_sentence(errors: Grid, deltas: Grid | None) -> str:
    if 0 not in errors.columns:
        return "The values before training were not kept, so no layer could be put back to its start."
    return _sentence(errors, deltas, 0, "put back to their start one at a time")


def _random_sentence(errors: Grid, deltas: Grid | None) -> str:
    draws = errors.rests_on(True)
    if not errors.has_random or not draws:
        return "No layer was re-randomised."
    how = f"mean over {words.plural(draws, 'draw')}" if draws > 1 else "one draw"
    return _sentence(errors, deltas, RANDOM, f"re-randomised one at a time ({how})")


def _sentence(errors: Grid, deltas: Grid | None, column: Column, how: str) -> str:
    """Counts, names and errors by verdict."""
    names = [name for name in errors.rows if name != WHOLE and not errors.at(name, column).missing]
    groups: dict[str, list[str]] = {}
    for name in names:
        verdict = deltas.at(name, column).verdict if deltas else ""
        groups.setdefault(verdict or "without a verdict", []).append(name)
    said = [_group(errors, column, v, groups[v], len(names)) for v in (*_VERBS, "without a verdict") if v in groups]
    if not said:
        return f"No number is known for layers {how}."
    return f"Of {words.plural(len(names), 'layer')} {how}, {'; '.join(said)}."


def _group(errors: Grid, column: Column, verdict: str, names: Sequence[str], of: int) -> str:
    verb = _VERBS.get(verdict, ("is without a verdict", "are without a verdict"))[len(names) > 1]
    values = [errors.at(name, column).value for name in names]
    low, high = words.number(min(values), UNIT), words.number(max(values), UNIT)
    span = low if low == high else f"{low} to {high}"
    every = "all " if len(names) == of > 1 else ""
    return f"{every}{len(names)} {verb} ({words.listed(names)}; {span} % error)"


def _rule(table: Table, spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The words of the verdicts with their thresholds in percentage points."""
    chance, cell = 100 * table.provenance.get("chance", math.nan), unmodified(table)
    gap = chance - cell.value
    if not gap > 0:
        return [("undecided", "all layers: the unmodified network is not known to be better than chance")]
    ambient, destroyed = (words.number(spec[name] * gap, "%") for name in ("ambient", "destroyed"))
    share = f"{spec['ambient']:g} of the {words.number(gap, '%')} points from the unmodified network to chance"
    return [
        ("ambient", f"the whole interval of the change lies below {ambient} percentage points ({share})"),
        ("critical", f"the whole interval lies above {ambient} percentage points"),
        (
            "destroyed",
            f"the whole interval lies above {destroyed} points ({spec['destroyed']:g} of the same)",
        ),
        ("undecided", "none of these: the data are too few to tell, or there is no interval"),
    ]
