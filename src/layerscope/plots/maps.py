"""Maps of Parts and epochs, as Fig. 1 and Fig. 14 of zhang2022, drawn with matplotlib."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from layerscope.plots import house, names, scales, words
from layerscope.plots.grid import RANDOM, WHOLE, Grid, distance_grid, has, has_distances, layer_grid
from layerscope.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRINTED = 16
"""Columns up to which the numbers are printed in the cells."""
_MOST = 500
"""Cells up to which they are: more make a large file, and can be read in the report."""
SMALL = 80
"""Rows above which the type is small."""
_RASTER = 1500
"""Cells from which the squares of an SVG are pixels, to keep the file small."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Places:
    """Where the columns and rows of a map lie; the re-randomised column and the whole network stand apart."""

    columns: tuple[Span, ...]
    rows: tuple[Span, ...]

    @classmethod
    def of(cls, grid: Grid) -> "Places":
        n = len(grid.steps)
        wide, gap = max(1.0, n / 18), max(0.35, n / 45)
        left = [(-gap - wide, -gap)] if grid.has_random else []
        below = [0.3 if name == WHOLE and len(grid.rows) > 1 else 0.0 for name in grid.rows]
        return cls(
            (*left, *((float(i), i + 1.0) for i in range(n))),
            tuple((i + shift, i + 1 + shift) for i, shift in enumerate(below)),
        )

    def square(self, row: int, column: int) -> list[tuple[float, float]]:
        """The corners of one cell."""
        (x0, x1), (y0, y1) = self.columns[column], self.rows[row]
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def layer_map(table: Table, metric: str | None = None, split: str = "test") -> "Figure":
    """Which layers matter: a metric (the deciding one) with each Part re-randomised or put back to each epoch.

    All else is as trained. Rows are Parts; the last row is the whole network at that epoch. The first
    column, set apart, is the mean over draws. Hatched cells have no number; the note below says why.
    Colours run from the unmodified network (light) to chance, where that is known, and follow the square root, so
    that small changes can be told apart; amounts that span orders of magnitude have a logarithmic scale.
    Source: zhang2022, Fig. 1(a). Differs from the paper: the first column is a mean over several draws.
    """
    grid = layer_grid(table, metric, split)
    axis = f"{grid.about.step} whose values the {grid.about.part} is put back to" if grid.steps else ""
    return _map(grid, _headline(table, grid), axis)


def distance_map(
    table: Table, norm: Literal["l2", "max"] = "l2", to: Literal["start", "substituted"] = "start"
) -> "Figure":
    """How far each Part moved: at each epoch from its start, or from the values put in its place.

    `l2` is the 2-norm divided by the square root of the number of parameters, `max` the largest entry.
    Source: zhang2022, Fig. 1(b, c) (`start`) and Fig. 14(b, c) (`substituted`).
    """
    grid = distance_grid(table, norm, to)
    step = grid.about.step
    origin = "the pretrained values" if grid.about.pretrained else "its start"
    what = f"from {origin} to each {step}" if to == "start" else "from trained values to those put in their place"
    axis = step if to == "start" else f"{step} whose values are put in place" if grid.steps else ""
    return _map(grid, f"{words.title(grid)}\n{what}", axis)


def figures(table: Table) -> "dict[str, Figure]":
    """The layer map and, where there is a start, the two distance maps; of values alone these are all."""
    alone = not has(table) and has_distances(table)
    found = {} if alone else {str(table.provenance.get("metric", "error")): layer_map(table)}
    if "to" in table.frame and "start" in set(table.frame["to"]):
        found |= {f"distance-{norm}": distance_map(table, norm) for norm in ("l2", "max")}
    return found


def _headline(table: Table, grid: Grid) -> str:
    data = words.data_name(table.provenance)
    about = [f"{data} {grid.split} data".strip()]
    if words.sample_count(table, grid):
        about.append(f"n = {words.samples(table, grid)}")
    if grid.rests_on(True):
        about.append(f"{words.plural(grid.rests_on(True), 'draw')} {grid.about.randomised}")
    below = textwrap.fill(", ".join(about), 54, break_on_hyphens=False)
    return f"{names.title(grid.metric)} with one {grid.about.part} changed\n{below}"


def _map(grid: Grid, title: str, axis: str) -> "Figure":
    with house.style():
        note = _note(grid)
        height = min(60.0, 1.75 + _row_height(len(grid.rows)) * len(grid.rows) + 0.14 * len(note))
        figure = house.figure(min(11.0, 6.4 + 0.1 * len(grid.columns)), height)
        axes, places = figure.add_subplot(), Places.of(grid)
        _cells(figure, axes, grid, places)
        _labels(axes, grid, places)
        axes.set_title(title, loc="left", parse_math=False)
        axes.set_xlabel(axis)
        if note:
            below = figure.supxlabel("\n".join(note), x=0.01, ha="left", fontsize=7.5, color="#333333")
            below.set_parse_math(False)
    return figure


def _row_height(rows: int) -> float:
    """Inches that a row takes; many rows get a smaller type."""
    return max(0.17, 0.36 - 0.006 * rows) if rows <= SMALL else 0.12


def _small(grid: Grid) -> bool:
    return len(grid.rows) > SMALL


def _cells(figure: "Figure", axes: "Axes", grid: Grid, places: Places) -> None:
    """The squares: coloured with a number, hatched without."""
    every = [(r, c) for r in range(len(grid.rows)) for c in range(len(grid.columns))]
    full = [(r, c) for r, c in every if not grid.cells[r][c].missing]
    colours = [grid.shade(grid.cells[r][c]) for r, c in full]
    _squares(axes, [places.square(*place) for place in full], facecolors=colours, linewidths=0.4)
    empty = [places.square(r, c) for r, c in every if grid.cells[r][c].missing]
    _squares(axes, empty, facecolors="#e6e6e6", edgecolors="#8a8a8a", hatch="////", linewidths=0.0)
    if len(grid.columns) <= PRINTED and len(every) <= _MOST:
        _numbers(axes, grid, places)
    _bar(figure, axes, grid)


def _bar(figure: "Figure", axes: "Axes", grid: Grid) -> None:
    """The scale of the colours; of many rows, a short one at the top."""
    import numpy as np
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import FuncNorm

    scale, stops = grid.scale, scales.stops(grid.metric)
    up, down = (np.vectorize(convert, otypes=[float]) for convert in (scale.up, scale.value))
    norm = FuncNorm((up, down), scale.low, scale.high)
    cmap = house.colormap(stops[::-1] if scale.flipped else stops)
    size = {"anchor": (0.0, 1.0), "shrink": 30 / len(grid.rows)} if _small(grid) else {}
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=axes, pad=0.015, fraction=0.045, aspect=18, **size)
    bar.set_label(f"{grid.amount}\n{words.about_scale(grid)}".rstrip(), parse_math=False)
    ticks = scale.ticks(end=True)
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _squares(axes: "Axes", corners: Sequence[Sequence[tuple[float, float]]], **look: object) -> None:
    from matplotlib.collections import PolyCollection

    if corners:
        squares = PolyCollection(corners, **({"edgecolors": "face"} | look))  # pyright: ignore[reportArgumentType]
        squares.set_rasterized(len(corners) > _RASTER)
        axes.add_collection(squares, autolim=False)


def _numbers(axes: "Axes", grid: Grid, places: Places) -> None:
    for row, y in zip(grid.cells, places.rows, strict=True):
        for cell, x in zip(row, places.columns, strict=True):
            if not cell.missing:
                colour = scales.ink(grid.shade(cell))
                text, size = words.short(cell.value, grid.unit), 5.5 if _small(grid) else 7
                axes.text(sum(x) / 2, sum(y) / 2, text, ha="center", va="center", fontsize=size, color=colour)


def _labels(axes: "Axes", grid: Grid, places: Places) -> None:
    axes.set_xlim(places.columns[0][0], places.columns[-1][1])
    axes.set_ylim(places.rows[-1][1], places.rows[0][0])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=2.5, color="#555555")
    axes.tick_params(axis="y", length=0)
    rows = list(words.labels(grid.rows).values())
    size = 9 if len(rows) <= 30 else 5.5 if _small(grid) else 7
    axes.set_yticks([sum(span) / 2 for span in places.rows], rows, fontsize=size, parse_math=False)
    chosen = _labelled(grid)
    axes.set_xticks([sum(places.columns[i]) / 2 for i, _ in chosen], [label for _, label in chosen], fontsize=8)


def _labelled(grid: Grid) -> list[tuple[int, str]]:
    """The columns that get a label: index and text."""
    skip = int(grid.has_random)
    found = [(i + skip, str(grid.steps[i])) for i in scales.tick_indices(len(grid.steps), 14)]
    if len(found) > 1:
        found[-1] = (found[-1][0], f"{found[-1][1]}\nfinal")
    if found and grid.steps[0] == 0:
        found[0] = (found[0][0], "pre-\ntrained" if grid.about.pretrained else "0\nstart")
    return [(0, grid.about.random_head), *found] if grid.columns[0] is RANDOM else found


def _note(grid: Grid) -> list[str]:
    """Why cells are hatched, in a few lines."""
    lines = [f"{words.listed(places, 3)}: {reason}" for reason, places in grid.reasons().items()]
    return textwrap.wrap("Hatched: " + "; ".join(words.some(lines, 4)), 110) if lines else []
