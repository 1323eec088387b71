"""What a line picture shows: one line a Part or data split over epochs. Plain values, no drawing."""

import math
from dataclasses import dataclass

from layerscope.errors import UseError
from layerscope.plots import scales
from layerscope.plots.about import About, deciding
from layerscope.plots.grid import Cell, Column, Grid, distance_grid, layer_grid, records, scale_of
from layerscope.plots.names import shown_unit
from layerscope.table import Table

MOST = 24
"""Lines of a picture; of more Parts those are drawn that stand out most."""


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
    """Lines that share their axes. `others` counts the Parts that have no line because there are too many."""

    metric: str
    unit: str
    lines: tuple[Line, ...]
    scale: scales.Scale
    about: About
    others: int = 0

    def last(self) -> int:
        """The last epoch."""
        return max((epoch for line in self.lines for epoch in line.epochs), default=1)

    def chosen(self) -> str:
        """Which Parts have a line, where not all do."""
        most = "moved furthest" if self.metric.startswith("distance_") else "are the worst somewhere"
        n = len(self.lines)
        return f"Lines: the {n} of {n + self.others} {self.about.part}s that {most}." if self.others else ""


def layer_panel(table: Table, metric: str | None = None, split: str = "test") -> Panel:
    """One line a Part: the metric with its values of each epoch, or its distance from the start then.

    At most 24 lines, in the order of the Parts.
    """
    metric = metric or deciding(table)
    of_distance = metric.startswith("distance_")
    grid = distance_grid(table, metric.removeprefix("distance_")) if of_distance else layer_grid(table, metric, split)
    lines = [_line(grid, row) for row in grid.parts]
    chosen = _standing_out(lines, grid.higher)
    scale = scale_of(metric, grid.unit, [*_ends(chosen), grid.unmodified], math.nan, grid.higher)
    return Panel(metric, grid.unit, chosen, scale, grid.about, len(lines) - len(chosen))


def training_panels(table: Table) -> list[Panel]:
    """Error and loss over the steps of training, one panel a metric, one line a split."""
    if not len(table):
        raise UseError("this table of training has no rows")
    rows = [row for row in records(table.frame) if row["status"] == "ok" and row["value"] is not None]
    about = About(step=About.of(table).step)
    return [_training_panel(rows, metric, about) for metric in dict.fromkeys(str(row["metric"]) for row in rows)]


def _standing_out(lines: list[Line], higher: bool) -> tuple[Line, ...]:
    """The lines with the worst numbers."""

    def worst(line: Line) -> float:
        return max((-value if higher else value for value in line.values), default=-math.inf)

    kept = {line.name for line in sorted(lines, key=worst, reverse=True)[:MOST]}
    return tuple(line for line in lines if line.name in kept)


def _ends(lines: tuple[Line, ...]) -> list[float]:
    """The numbers of lines and the upper ends of their intervals."""
    return [value for line in lines for value in (*line.values, *line.high)]


def _line(grid: Grid, row: str) -> Line:
    places: list[tuple[Column, Cell]] = [(c, grid.at(row, c)) for c in grid.steps]
    return _of(
        row,
        [(c, cell.value, cell.low, cell.high) for c, cell in places if c is not None and not cell.missing],
    )


def _training_panel(rows: list, metric: str, about: About) -> Panel:
    mine = [row for row in rows if row["metric"] == metric]
    factor, unit = shown_unit(metric, mine[0]["unit"])
    lines = []
    for split in sorted({row["split"] for row in mine}):
        points = [(row["step"], factor * row["value"], math.nan, math.nan) for row in mine if row["split"] == split]
        lines.append(_of(split, points))
    return Panel(metric, unit, tuple(lines), scales.from_zero(_ends(tuple(lines)), "root"), about)


def _of(name: str, points: list[tuple[int, float, float, float]]) -> Line:
    epochs, values, low, high = zip(*sorted(points), strict=True) if points else ((), (), (), ())
    return Line(name, epochs, values, low, high)
