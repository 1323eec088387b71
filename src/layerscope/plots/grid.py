"""What a map shows: rows of a table laid out by Part and epoch, with what is missing and why. No drawing."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerscope import stats
from layerscope.errors import UseError
from layerscope.partition import WHOLE
from layerscope.plots import scales
from layerscope.table import Table

if TYPE_CHECKING:
    import pandas as pd


RANDOM = None
"""The column of re-randomised Parts; every other column is an epoch."""

TITLES = {
    "error": "Error",
    "error_delta": "Change of error",
    "cross_entropy": "Cross-entropy",
    "cross_entropy_delta": "Change of cross-entropy",
    "distance_l2": "Distance (2-norm / √parameters)",
    "distance_max": "Distance (largest entry)",
}
"""Metric -> its name in a picture."""

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


@dataclass(frozen=True)
class Grid:
    """Cells by row (Parts, the whole network last) and column (`RANDOM` if there is one, epochs)."""

    metric: str
    split: str
    unit: str
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: tuple[tuple[Cell, ...], ...]
    chance: float = math.nan

    @property
    def steps(self) -> tuple[int, ...]:
        """The epochs among the columns."""
        return tuple(column for column in self.columns if column is not None)

    @property
    def has_random(self) -> bool:
        return RANDOM in self.columns

    def at(self, row: str, column: Column) -> Cell:
        """The cell of a Part at an epoch, or re-randomised; a missing one if the map has no such place."""
        if row not in self.rows or column not in self.columns:
            return Cell(missing="not measured")
        return self.cells[self.rows.index(row)][self.columns.index(column)]

    def flat(self) -> Iterator[Cell]:
        """All cells, row by row."""
        return (cell for row in self.cells for cell in row)

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The ends of the colour scale: from 0 (or the least value) to the largest value or chance."""
        values = [cell.value for cell in self.flat() if not cell.missing]
        reference = [self.chance] if self.metric == "error" and math.isfinite(self.chance) else []
        low, high = min([0.0, *values]), max([0.0, *values, *reference])
        return (low, high) if high > low else (low, low + 1.0)

    @property
    def rooted(self) -> bool:
        """Whether colours follow the square root."""
        return scales.is_rooted(self.metric, self.limits)

    def shade(self, cell: Cell) -> str:
        """The colour of a cell with a number, as `#rrggbb`."""
        place = scales.share(cell.value, self.limits, self.rooted)
        return scales.colour(place, scales.stops(self.metric))

    def rests_on(self, random: bool) -> int:
        """How many samples (or draws, for the re-randomised column) a cell rests on at most."""
        cells = (zip(self.columns, row, strict=True) for row in self.cells)
        return max((c.n for row in cells for column, c in row if (column is RANDOM) == random), default=0)

    def reasons(self) -> dict[str, list[str]]:
        """Why cells are missing: reason -> where."""
        found: dict[str, list[str]] = {}
        for name, row in zip(self.rows, self.cells, strict=True):
            for column, cell in zip(self.columns, row, strict=True):
                if cell.missing:
                    found.setdefault(cell.missing, []).append(f"{name}, {column_name(column)}")
        return found


def column_name(column: Column) -> str:
    """A column in words."""
    return "re-randomised" if column is None else f"epoch {column}"


def shown_unit(metric: str, unit: str) -> tuple[float, str]:
    """The factor to what people read, and its unit: fractions become per cent."""
    if unit != "fraction":
        return 1.0, unit
    return 100.0, {"error": "% error", "error_delta": "percentage points"}.get(metric, "%")


def records(frame: "pd.DataFrame") -> list[Record]:
    """The rows of a frame as mappings; missing values are None."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")  # pyright: ignore[reportReturnType]


def has(table: Table, metric: str, split: str = "test") -> bool:
    """Whether the table has a map of this metric: a Part changed, with a value or a failure."""
    changed = table.frame["perturbation"].isin(["rewind", "rerandomize"])
    return bool((changed & table.frame["metric"].eq(metric) & table.frame["split"].eq(split)).any())


def layer_grid(table: Table, metric: str = "error", split: str = "test") -> Grid:
    """The map of a metric: each Part re-randomised (mean over draws) and with its values of each epoch."""
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


def has_distances(table: Table, norm: str = "l2", to: str = "start") -> bool:
    """Whether the table has these distances."""
    return "to" in table.frame and len(table.where(metric=f"distance_{norm}", to=to)) > 0


def unmodified(table: Table, metric: str = "error", split: str = "test") -> Cell:
    """The unmodified network's number."""
    found = records(table.where(perturbation="none", metric=metric, split=split))
    if not found:
        return Cell(missing="not measured")
    return _cell(found[0], shown_unit(metric, found[0]["unit"])[0])


def changed(table: Table) -> Grid | None:
    """The changes of test error by Part and epoch, with the verdicts on them; None if the table has none."""
    return layer_grid(table, "error_delta") if has(table, "error_delta") else None


def _nothing(table: Table, what: str) -> str:
    there = sorted({f"{m} ({s})" if s else m for m, s in zip(table.frame["metric"], table.frame["split"], strict=True)})
    return f"this table has no {what} of changed layers; it has {', '.join(there) or 'no rows'}"


def _grid(table: Table, rows: Sequence[Record], metric: str, split: str) -> Grid:
    unit = next((row["unit"] for row in rows if row["unit"]), "")
    factor, unit = shown_unit(metric, unit)
    groups = _by_place(rows)
    names = _in_order(table, {part for part, _ in groups})
    inapplicable = _inapplicable(table)
    columns = _columns(groups, bool(inapplicable) and split != "")
    cells = tuple(tuple(_filled(groups, n, c, factor, inapplicable) for c in columns) for n in names)
    return Grid(metric, split, unit, names, columns, cells, 100 * table.provenance.get("chance", math.nan))


def _by_place(rows: Iterable[Record]) -> dict[tuple[str, Column], list[Record]]:
    """The rows of each (Part, column)."""
    groups: dict[tuple[str, Column], list[Record]] = {}
    for row in rows:
        if row["perturbation"] in ("rewind", "rerandomize"):
            column = RANDOM if row["perturbation"] == "rerandomize" else row.get("step")
            groups.setdefault((row["part"], column), []).append(row)
    return groups


def _in_order(table: Table, present: set[str]) -> tuple[str, ...]:
    """The Parts in the order of the table, the whole network last."""
    names = [name for name in table.parts() if name in present]
    return tuple(sorted(names, key=lambda name: name == WHOLE))


def _inapplicable(table: Table) -> dict[str, str]:
    """Parts that could not be re-randomised, with the reason."""
    rows = table.where(perturbation="rerandomize", status="not applicable")
    return dict(zip(rows["part"], rows["reason"], strict=True))


def _columns(groups: Iterable[tuple[str, Column]], random: bool) -> tuple[Column, ...]:
    found = {column for _, column in groups}
    steps = sorted(column for column in found if column is not None)
    return (RANDOM, *steps) if random or RANDOM in found else tuple(steps)


def _filled(
    groups: Mapping[tuple[str, Column], list[Record]],
    part: str,
    column: Column,
    factor: float,
    inapplicable: Mapping[str, str],
) -> Cell:
    rows = groups.get((part, column), [])
    if column is RANDOM:
        return _random_cell(part, rows, factor, inapplicable)
    if len(rows) > 1:
        raise UseError(f"this table has {len(rows)} rows for {part} at epoch {column}; draw one run at a time")
    return _cell(rows[0], factor) if rows else Cell(missing="not measured")


def _random_cell(part: str, rows: Sequence[Record], factor: float, inapplicable: Mapping[str, str]) -> Cell:
    """The mean over draws: as the table has it, else computed here (distances have draws only)."""
    if part in inapplicable:
        return Cell(missing=f"not applicable: {inapplicable[part]}")
    if not rows:
        return Cell(missing="not measured" if part != WHOLE else "not measured (single layers only)")
    means = [row for row in rows if row.get("draw") is None]
    return _cell(means[0], factor) if means else _over_draws([_cell(row, factor) for row in rows])


def _over_draws(draws: Sequence[Cell]) -> Cell:
    import numpy as np

    if failed := [cell for cell in draws if cell.missing]:
        return failed[0]
    values = np.array([cell.value for cell in draws])
    low, high = stats.mean(values)
    return Cell(float(values.mean()), low, high, len(values), "draws", 0.95)


def _cell(row: Record, factor: float) -> Cell:
    if row["status"] != "ok" or row["value"] is None or not math.isfinite(row["value"]):
        status = row["status"] if row["status"] not in (None, "", "ok") else "no value"
        return Cell(missing=f"{status}: {row['reason']}" if row["reason"] else status, n=row["n"] or 0)
    value, low, high = (math.nan if row[name] is None else factor * row[name] for name in ("value", "low", "high"))
    level = math.nan if row["level"] is None else row["level"]
    return Cell(value, low, high, row["n"] or 0, row["interval"] or "", level, row["verdict"] or "")
