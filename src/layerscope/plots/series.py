"""What a line picture shows: one line a Part or data split over epochs. Plain values, no drawing."""

import math
from dataclasses import dataclass

from layerscope.errors import UseError
from layerscope.plots.grid import WHOLE, Cell, Column, Grid, distance_grid, layer_grid, records, shown_unit
from layerscope.table import Table


@dataclass(frozen=True)
class Line:
    """Numbers over epochs; low and high are NaN where there is no interval. Missing numbers are left out."""

    name: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def has_band(self) -> bool:
        return any(math.isfinite(value) for value in self.low)


@dataclass(frozen=True)
class Panel:
    """Lines that share their axes."""

    metric: str
    unit: str
    lines: tuple[Line, ...]

    def highest(self) -> float:
        """The largest number or end of an interval."""
        ends = [v for line in self.lines for v in (*line.values, *line.high) if math.isfinite(v)]
        return max([0.0, *ends])

    def last(self) -> int:
        """The last epoch."""
        return max((epoch for line in self.lines for epoch in line.epochs), default=1)


def layer_panel(table: Table, metric: str = "error", split: str = "test") -> Panel:
    """One line a Part: the metric with its values of each epoch, or its distance from the start then."""
    of_distance = metric.startswith("distance_")
    grid = distance_grid(table, metric.removeprefix("distance_")) if of_distance else layer_grid(table, metric, split)
    return Panel(metric, grid.unit, tuple(_line(grid, row) for row in grid.rows if row != WHOLE))


def training_panels(table: Table) -> list[Panel]:
    """Error and loss over the epochs of training, one panel a metric, one line a split."""
    if not len(table):
        raise UseError("this table of training has no rows")
    rows = [row for row in records(table.frame) if row["status"] == "ok" and row["value"] is not None]
    return [_training_panel(rows, metric) for metric in dict.fromkeys(str(row["metric"]) for row in rows)]


def _line(grid: Grid, row: str) -> Line:
    places: list[tuple[Column, Cell]] = [(c, grid.at(row, c)) for c in grid.steps]
    return _of(
        row,
        [(c, cell.value, cell.low, cell.high) for c, cell in places if c is not None and not cell.missing],
    )


def _training_panel(rows: list, metric: str) -> Panel:
    mine = [row for row in rows if row["metric"] == metric]
    factor, unit = shown_unit(metric, mine[0]["unit"])
    lines = []
    for split in sorted({row["split"] for row in mine}):
        points = [(row["step"], factor * row["value"], math.nan, math.nan) for row in mine if row["split"] == split]
        lines.append(_of(split, points))
    return Panel(metric, unit, tuple(lines))


def _of(name: str, points: list[tuple[int, float, float, float]]) -> Line:
    epochs, values, low, high = zip(*sorted(points), strict=True) if points else ((), (), (), ())
    return Line(name, epochs, values, low, high)
