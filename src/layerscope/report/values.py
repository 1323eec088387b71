"""The numbers behind a picture as a table: one row an epoch, one column a Part; of many Parts, the other way round."""

from collections.abc import Sequence
from dataclasses import dataclass

from layerscope.plots import words
from layerscope.plots.about import About
from layerscope.plots.grid import Cell, Column, Grid
from layerscope.plots.names import counted, noun
from layerscope.plots.series import training_panels
from layerscope.table import Table

WIDE = 24
"""Parts from which they are the rows."""


@dataclass(frozen=True)
class Value:
    """A number as text, its interval, or why it is missing."""

    text: str
    interval: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Place:
    """One column of the map: what it is, and how many samples or draws its numbers rest on."""

    head: str
    n: int
    kind: str
    cells: list[Value]


@dataclass(frozen=True)
class Values:
    """A table of numbers. `turned` if the Parts are its rows."""

    id: str
    metric: str
    split: str
    unit: str
    amount: str
    counted: str
    level: str
    turned: bool
    names: tuple[str, ...]
    places: list[Place]


def values_of(identity: str, grid: Grid) -> Values:
    """The numbers of a map."""
    level = next((words.level(cell) for cell in grid.flat() if cell.has_interval), "")
    columns = [(c, [row[i] for row in grid.cells]) for i, c in enumerate(grid.columns)]
    return Values(
        id=identity,
        metric=grid.metric,
        split=grid.split,
        unit=grid.unit,
        amount=f"in {grid.unit}" if grid.unit else f"of {noun(grid.metric)}",
        counted=f"{grid.split} {counted(grid.metric)}s" if grid.split else "",
        level=level,
        turned=len(grid.rows) > max(WIDE, len(grid.columns)),
        names=grid.rows,
        places=[_place(grid, column, cells) for column, cells in columns],
    )


def _place(grid: Grid, column: Column, cells: Sequence[Cell]) -> Place:
    return Place(
        head=grid.column_name(column),
        n=max(cell.n for cell in cells),
        kind=next((cell.interval for cell in cells if cell.has_interval), ""),
        cells=[_value(cell, grid.unit) for cell in cells],
    )


def _value(cell: Cell, unit: str) -> Value:
    if cell.missing:
        return Value("none", missing=cell.missing)
    return Value(words.number(cell.value, unit), words.interval(cell, unit))


def training_values(training: Table) -> tuple[list[str], list[list[str]]]:
    """Error and loss per step and split: the heads of the columns, and the rows."""
    lines = [(panel, line) for panel in training_panels(training) for line in panel.lines]
    found = [dict(zip(line.epochs, line.values, strict=True)) for _, line in lines]
    heads = [
        About.of(training).step.capitalize(),
        *(f"{noun(panel.metric)}, {line.name}{f' ({panel.unit})' if panel.unit else ''}" for panel, line in lines),
    ]
    rows = [
        [
            str(epoch),
            *(words.number(v[epoch], p.unit) if epoch in v else "none" for v, (p, _) in zip(found, lines, strict=True)),
        ]
        for epoch in sorted({epoch for values in found for epoch in values})
    ]
    return heads, rows
