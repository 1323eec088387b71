"""What a map shows: rows of a table laid out by Part and epoch, with what is missing and why. No drawing."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerscope import stats
from layerscope.errors import UseError
from layerscope.partition import WHOLE
from layerscope.plots import names, scales
from layerscope.plots.about import About, deciding
from layerscope.plots.names import shown_unit
from layerscope.table import Table

if TYPE_CHECKING:
    import pandas as pd


RANDOM = None
"""The column of re-randomised Parts; every other column is an epoch."""
RANDOMISED = ("rerandomize", "permute", "moments")
"""The perturbations that this column is of; a table has those of one kind."""

Record = Mapping[str, Any]
Column = int | None


@dataclass(frozen=True)
class Cell:
    """One number of a map in the unit of its Grid, and what it rests on; `missing` says why there is none."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    interval: str = ""
    level: float = math.nan
    verdict: str = ""
    missing: str = ""

    @property
    def has_interval(self) -> bool:
        return not self.missing and math.isfinite(self.low) and math.isfinite(self.high)


SAMPLED = ("population", "dataset")
"""Kinds of interval that are over samples."""


@dataclass(frozen=True)
class Grid:
    """Cells by row (Parts, the whole network last) and column (`RANDOM` if there is one, epochs).

    `chance` is what a guess would score and `unmodified` what the network does, in the unit of the cells; NaN if unknown.
    """

    metric: str
    split: str
    unit: str
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: tuple[tuple[Cell, ...], ...]
    about: About
    chance: float = math.nan
    unmodified: float = math.nan

    @property
    def parts(self) -> tuple[str, ...]:
        """The rows without the whole network."""
        return tuple(row for row in self.rows if row != WHOLE)

    @property
    def steps(self) -> tuple[int, ...]:
        """The epochs among the columns."""
        return tuple(column for column in self.columns if column is not None)

    @property
    def has_random(self) -> bool:
        return RANDOM in self.columns

    @property
    def higher(self) -> bool:
        """Whether more is better."""
        return self.about.higher and self.metric.removesuffix(names.DELTA) == self.about.metric

    @property
    def amount(self) -> str:
        """What the numbers are, for a place that says only that: the unit, or without one the metric."""
        return self.unit or names.noun(self.metric)

    def at(self, row: str, column: Column) -> Cell:
        """The cell of a Part at an epoch, or re-randomised; a missing one if the map has no such place."""
        if row not in self.rows or column not in self.columns:
            return Cell(missing="not measured")
        return self.cells[self.rows.index(row)][self.columns.index(column)]

    def flat(self) -> Iterator[Cell]:
        """All cells, row by row."""
        return (cell for row in self.cells for cell in row)

    @cached_property
    def scale(self) -> scales.Scale:
        """The scale of the colours: from the unmodified network to chance, where they are known, else from the data."""
        values = [cell.value for cell in self.flat() if not cell.missing]
        return scale_of(self.metric, self.unit, [*values, self.unmodified], self.chance, self.higher)

    def shade(self, cell: Cell) -> str:
        """The colour of a cell with a number, as `#rrggbb`."""
        return scales.colour(self.scale.shade(cell.value), scales.stops(self.metric))

    def rests_on(self, random: bool) -> int:
        """How many samples (or draws, for the re-randomised column) a cell rests on at most. A Part whose draws are all the
        same has the interval of one, over samples, and does not count among the draws."""
        cells = [(column, c) for row in self.cells for column, c in zip(self.columns, row, strict=True)]
        if random:
            return max((c.n for column, c in cells if column is RANDOM and c.interval not in SAMPLED), default=0)
        return max((c.n for column, c in cells if column is not RANDOM), default=0)

    @property
    def fewest(self) -> int:
        """How many samples a cell that rests on samples rests on at least; 0 if there is none."""
        cells = (c for row in self.cells for c in row if c.interval in SAMPLED)
        return min((c.n for c in cells if c.n), default=0)

    def column_name(self, column: Column) -> str:
        """A column in words."""
        return column_name(column, self.about)

    def reasons(self) -> dict[str, list[str]]:
        """Why cells are missing: reason -> where."""
        found: dict[str, list[str]] = {}
        for name, row in zip(self.rows, self.cells, strict=True):
            for column, cell in zip(self.columns, row, strict=True):
                if cell.missing:
                    found.setdefault(general(cell.missing, name), []).append(f"{name}, {self.column_name(column)}")
        return found


def scale_of(metric: str, unit: str, values: Iterable[float], chance: float, higher: bool) -> scales.Scale:
    """The scale that fits a metric and its numbers."""
    if metric.startswith(("distance_", "norm_")):
        return scales.from_zero(values, "linear")
    if metric.endswith(names.DELTA):
        return scales.from_zero(values, "root", higher)
    if unit.startswith("% "):
        return scales.of_shares(values, chance, higher)
    return scales.of_amounts(values, chance, higher, names.is_exponential(metric))


def column_name(column: Column, about: About) -> str:
    """A column in words."""
    if column is None:
        return about.randomised
    return "pretrained" if about.pretrained and column == 0 else f"{about.step} {column}"


def general(reason: str, part: str) -> str:
    """A reason without the names of a Part's own tensors, so that Parts with the same trouble are told of together."""
    own = "|".join(rf"{re.escape(alias)}(?:\.\w+)+" for alias in part.split(" = "))
    return re.sub(rf"(?<![\w.])(?:{own})(?:, (?:{own}))*(?![\w.])", "its own tensors", reason)


def records(frame: "pd.DataFrame") -> list[Record]:
    """The rows of a frame as mappings; missing values are None."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")  # pyright: ignore[reportReturnType]


def has(table: Table, metric: str | None = None, split: str = "test") -> bool:
    """Whether the table has a map of this metric (the deciding one): a Part changed, with a value or a failure."""
    metric = metric or deciding(table)
    frame = table.frame
    changed = frame["perturbation"].isin(["rewind", *RANDOMISED]) & frame["metric"].eq(metric)
    told = frame["split"].eq(split) | (frame["status"].eq("not applicable") & (split == "test"))
    return bool((changed & told).any())


def layer_grid(table: Table, metric: str | None = None, split: str = "test") -> Grid:
    """The map of a metric (the deciding one): each Part re-randomised (mean over draws) and with its values of each epoch."""
    metric = metric or deciding(table)
    if not has(table, metric, split):
        raise UseError(_nothing(table, f"{metric} on {split or 'no'} data"))
    return _grid(table, records(table.where(metric=metric, split=split)), metric, split)


def distance_grid(table: Table, norm: str = "l2", to: str = "start") -> Grid:
    """The map of distances: checkpoints from the start, or trained values from those substituted."""
    if norm not in ("l2", "max") or to not in ("start", "substituted"):
        raise UseError(f"norm is l2 or max, to is start or substituted; not {norm!r}, {to!r}")
    found = has_distances(table, norm, to)
    if not found:
        raise UseError(_nothing(table, f"distance_{norm} to {to}"))
    return _grid(table, records(table.where(metric=f"distance_{norm}", to=to)), f"distance_{norm}", "")


def norm_grid(table: Table) -> Grid:
    """The map of the root mean squares of Parts by checkpoint."""
    return _grid(table, records(table.where(metric="norm_rms")), "norm_rms", "")


def has_distances(table: Table, norm: str = "l2", to: str = "start") -> bool:
    """Whether the table has these distances."""
    return "to" in table.frame and len(table.where(metric=f"distance_{norm}", to=to)) > 0


def unmodified(table: Table, metric: str | None = None, split: str = "test") -> Cell:
    """The unmodified network's number."""
    metric = metric or deciding(table)
    found = records(table.where(perturbation="none", metric=metric, split=split))
    if not found:
        return Cell(missing="not measured")
    return _cell(found[0], shown_unit(metric, found[0]["unit"])[0])


def changed(table: Table) -> Grid | None:
    """The changes of the deciding metric by Part and epoch, with the verdicts on them; None if the table has none."""
    metric = deciding(table) + names.DELTA
    return layer_grid(table, metric) if has(table, metric) else None


def _nothing(table: Table, what: str) -> str:
    there = sorted({f"{m} ({s})" if s else m for m, s in zip(table.frame["metric"], table.frame["split"], strict=True)})
    return f"this table has no {what} of changed layers; it has {', '.join(there) or 'no rows'}"


def _grid(table: Table, rows: Sequence[Record], metric: str, split: str) -> Grid:
    unit = next((row["unit"] for row in rows if row["unit"]), "")
    factor, unit = shown_unit(metric, unit)
    groups = _by_place(rows)
    about, inapplicable = About.of(table), _inapplicable(table) if split else {}
    parts = _in_order(table, {part for part, _ in (*inapplicable, *groups)})
    columns = _columns((*inapplicable, *groups))
    absent = {(WHOLE, RANDOM): f"not measured (single {about.part}s only)", **inapplicable}
    cells = tuple(tuple(_filled(groups, part, c, factor, absent) for c in columns) for part in parts)
    whole = [_cell(row, factor).value for row in rows if row["perturbation"] == "none"]
    chance = factor * about.chance if metric == about.metric else math.nan
    return Grid(metric, split, unit, parts, columns, cells, about, chance, next(iter(whole), math.nan))


def _by_place(rows: Iterable[Record]) -> dict[tuple[str, Column], list[Record]]:
    """The rows of each (Part, column)."""
    groups: dict[tuple[str, Column], list[Record]] = {}
    for row in rows:
        if row["perturbation"] in ("", "rewind", *RANDOMISED):
            column = RANDOM if row["perturbation"] in RANDOMISED else row.get("step")
            groups.setdefault((row["part"], column), []).append(row)
    return groups


def _in_order(table: Table, present: set[str]) -> tuple[str, ...]:
    """The Parts in the order of the table, the whole network last."""
    names = [name for name in table.parts() if name in present]
    return tuple(sorted(names, key=lambda name: name == WHOLE))


def _inapplicable(table: Table) -> dict[tuple[str, Column], str]:
    """Parts that could not be re-randomised, or put back to a pretrained network that lacks them, with the reason."""
    rows = [row for row in records(table.where(status="not applicable")) if not row.get("to")]
    return {place: f"not applicable: {found[0]['reason']}" for place, found in _by_place(rows).items()}


def _columns(places: Iterable[tuple[str, Column]]) -> tuple[Column, ...]:
    found = {column for _, column in places}
    steps = sorted(column for column in found if column is not None)
    return (RANDOM, *steps) if RANDOM in found else tuple(steps)


def _filled(
    groups: Mapping[tuple[str, Column], list[Record]],
    part: str,
    column: Column,
    factor: float,
    absent: Mapping[tuple[str, Column], str],
) -> Cell:
    """The cell of a Part; `absent` says why some have none."""
    rows = groups.get((part, column), [])
    if not rows:
        return Cell(missing=absent.get((part, column), "not measured"))
    if column is RANDOM:
        return _random_cell(rows, factor)
    if len(rows) > 1:
        raise UseError(f"this table has {len(rows)} rows for {part} at epoch {column}; draw one run at a time")
    return _cell(rows[0], factor)


def _random_cell(rows: Sequence[Record], factor: float) -> Cell:
    """The mean over draws: as the table has it, else computed here (distances have draws only)."""
    means = [row for row in rows if row.get("draw") is None]
    return _cell(means[0], factor) if means else _over_draws([_cell(row, factor) for row in rows])


def _over_draws(draws: Sequence[Cell]) -> Cell:
    import numpy as np

    if failed := [cell for cell in draws if cell.missing]:
        return failed[0]
    values = np.array([cell.value for cell in draws])
    low, high = stats.over_draws(values, [stats.Interval(cell.low, cell.high) for cell in draws])
    return Cell(float(values.mean()), low, high, len(values), "draws", 0.95)


def _cell(row: Record, factor: float) -> Cell:
    if row["status"] != "ok" or row["value"] is None or not math.isfinite(row["value"]):
        status = row["status"] if row["status"] not in (None, "", "ok") else "no value"
        return Cell(missing=f"{status}: {row['reason']}" if row["reason"] else status, n=row["n"] or 0)
    value, low, high = (math.nan if row[name] is None else factor * row[name] for name in ("value", "low", "high"))
    level = math.nan if row["level"] is None else row["level"]
    return Cell(value, low, high, row["n"] or 0, row["interval"] or "", level, row["verdict"] or "")
