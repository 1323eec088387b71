"""The table of verdicts: what changing each Part did, one row a Part."""

from dataclasses import dataclass

from layerscope.plots import names, words
from layerscope.plots.grid import RANDOM, Cell, Column, Grid, changed, has, layer_grid, records
from layerscope.table import Table

MARKS = {"ambient": "○", "critical": "●", "destroyed": "✕", "undecided": "?"}
"""Verdicts as signs that need no colour."""
LONG = 40
"""Rows from which a table scrolls in a box of its own."""


@dataclass(frozen=True)
class Change:
    """What one change of a Part did, as text; without a value, why."""

    value: str = "none"
    delta: str = "none"
    interval: str = "none"
    verdict: str = ""
    why: str = ""

    @property
    def mark(self) -> str:
        return MARKS.get(self.verdict, "–")

    @property
    def status(self) -> str:
        """In a word or two, why there is no value."""
        return self.why.split(":")[0] or "not measured"


@dataclass(frozen=True)
class PartResult:
    """One row."""

    name: str
    parameters: str
    changes: list[Change]


@dataclass(frozen=True)
class Verdicts:
    """The table, and the words of its heads. `kinds` are the changes: key and heading; `notes` say what its columns are."""

    part: str
    about: str
    value: str
    value_csv: str
    change_csv: str
    kinds: list[tuple[str, str]]
    judged: bool
    sized: bool
    long: bool
    rows: list[PartResult]
    notes: str


def verdicts(table: Table) -> Verdicts | None:
    """The verdicts by Part; None if nothing was changed."""
    if not has(table):
        return None
    values, deltas, sizes = layer_grid(table), changed(table), _parameters(table)
    kinds = _kinds(values)
    rows = [
        PartResult(name, sizes.get(name, "unknown"), [_change(values, deltas, name, column) for _, _, column in kinds])
        for name in values.parts
    ]
    unit = "%" if values.unit.startswith("%") else values.unit
    noun, change = names.noun(values.metric), deltas.unit if deltas else ""
    return Verdicts(
        part=values.about.part,
        about=_about(values, deltas),
        value=names.title(values.metric) + (f",\u00a0{unit}" if unit else ""),
        value_csv=f"{noun} ({unit})".removesuffix(" ()"),
        change_csv=f"change ({'points' if change == 'percentage points' else change})".removesuffix(" ()"),
        kinds=[(key, heading) for key, heading, _ in kinds],
        judged=values.about.knows_chance or not values.about.why_no_chance,
        sized=bool(sizes),
        long=len(rows) > LONG,
        rows=rows,
        notes=_notes(values, [key for key, _, _ in kinds], bool(sizes)),
    )


def _kinds(values: Grid) -> list[tuple[str, str, Column]]:
    """The changes that were made: key, heading and column of the map."""
    draws = values.rests_on(True)
    start: list[tuple[str, str, Column]] = [("start", f"Put back to {values.about.origin}", 0)] if values.steps else []
    over = f" ({words.plural(draws, 'draw')})" if draws else ""
    return (
        [*start, ("random", f"{values.about.randomised.capitalize()}{over}", RANDOM)]
        if values.has_random or not start
        else start
    )


def _about(values: Grid, deltas: Grid | None) -> str:
    """The caption: what the numbers are."""
    unit = f"in {deltas.unit}, " if deltas and deltas.unit else ""
    noun, part = names.noun(values.metric), values.about.part
    return (
        f"Test {noun} when one {part} is changed. Changes are {unit}against the unmodified network on the same "
        f"{names.counted(values.metric)}s."
    )


def _notes(values: Grid, kinds: list[str], sized: bool) -> str:
    """What the intervals are over, and what the parameters are."""
    said = {
        "start": f"Intervals after putting back a {values.about.part} are over test {names.counted(values.metric)}s.",
        "random": f"Intervals of what was {values.about.randomised} are over draws.",
    }
    last = ["Parameters counts all numbers that the distances rest on."] if sized else []
    return " ".join([said[kind] for kind in kinds] + last)


def _change(values: Grid, deltas: Grid | None, name: str, column: Column) -> Change:
    cell = values.at(name, column)
    if cell.missing:
        return Change(why=cell.missing)
    delta = deltas.at(name, column) if deltas else Cell(missing="not measured")
    unit = deltas.unit if deltas else ""
    return Change(
        words.number(cell.value, values.unit),
        "none" if delta.missing else words.number(delta.value, unit),
        words.interval(delta, unit) or "none",
        delta.verdict,
    )


def _parameters(table: Table) -> dict[str, str]:
    """How many numbers each Part has: what its distances rest on."""
    rows = records(table.where(metric="distance_l2"))
    return {row["part"]: words.count(row["n"]) for row in rows if row["n"]}
