"""A map as squares and labels with their places, for the SVG template. Pixels, y down."""

from dataclasses import dataclass

from layerscope.plots import scales, words
from layerscope.plots.grid import RANDOM, WHOLE, Cell, Column, Grid

LABEL = 28
"""Characters that the name of a row may have."""
PRINTED = 16
"""Columns up to which the numbers are printed in the cells."""


@dataclass(frozen=True)
class Text:
    x: float
    y: float
    text: str
    ink: str = ""


@dataclass(frozen=True)
class Square:
    """One cell; without a colour it has no number."""

    x: float
    width: float
    fill: str
    text: Text | None = None


@dataclass(frozen=True)
class Row:
    label: str
    y: float
    squares: list[Square]


@dataclass(frozen=True)
class Picture:
    """A drawn map."""

    width: float
    height: float
    left: float
    row_height: float
    bottom: float
    rows: list[Row]
    ticks: list[Text]
    tops: list[Text]
    bar: list[Square]
    bar_ticks: list[Text]
    bar_title: str
    axis: str
    missing: bool

    @property
    def frames(self) -> list[tuple[float, float]]:
        """Place and width of the re-randomised column, if there is one, and of all epochs."""
        squares = self.rows[0].squares
        split = 1 if len(squares) > 1 and squares[1].x - squares[0].x > squares[0].width + 1 else 0
        blocks = [block for block in (squares[:split], squares[split:]) if block]
        return [(block[0].x, round(block[-1].x + block[-1].width - block[0].x, 1)) for block in blocks]

    @property
    def middle(self) -> float:
        return round((self.left + self.width) / 2, 1)


def picture(grid: Grid) -> Picture:
    """The squares, labels and colour bar of a map."""
    left = 14 + 7.2 * max(len(words.shortened(name, LABEL)) for name in grid.rows)
    width = _cell_width(len(grid.columns))
    xs = _columns(grid, left, width)
    tall = 26.0 if len(grid.rows) <= 12 else 18.0 if len(grid.rows) <= 30 else 14.0
    tops = [20 + i * tall + (7 if name == WHOLE and len(grid.rows) > 1 else 0) for i, name in enumerate(grid.rows)]
    bottom = tops[-1] + tall
    return Picture(
        width=max(xs[-1][0] + xs[-1][1] + 12, left + 300),
        height=bottom + 98,
        left=left,
        row_height=tall,
        bottom=bottom,
        rows=[_row(grid, i, y, xs, tall) for i, y in enumerate(tops)],
        ticks=_ticks(grid, xs, bottom, width),
        tops=_tops(grid, xs),
        bar=_bar(grid, left),
        bar_ticks=_bar_ticks(grid, left),
        bar_title=grid.unit + (" (square-root colour scale)" if grid.rooted else ""),
        axis="epoch" if grid.metric.startswith("distance") else "epoch whose values the layer is put back to",
        missing=bool(grid.reasons()),
    )


def _cell_width(columns: int) -> float:
    return 50.0 if columns <= PRINTED else round(min(44.0, max(8.0, 860 / columns)), 1)


def _columns(grid: Grid, left: float, width: float) -> list[tuple[float, float]]:
    """Place and width of each column; the re-randomised one stands apart and is never thin."""
    places, x = [], left
    for column in grid.columns:
        wide = max(width, 44.0) if column is RANDOM else width
        places.append((round(x, 1), wide))
        x += wide + (22 if column is RANDOM else 0)
    return places


def _row(grid: Grid, index: int, y: float, xs: list[tuple[float, float]], tall: float) -> Row:
    printed = len(grid.columns) <= PRINTED and tall >= 18
    cells = zip(grid.cells[index], xs, strict=True)
    squares = [_square(grid, cell, x, width, tall if printed else 0) for cell, (x, width) in cells]
    return Row(words.shortened(grid.rows[index], LABEL), y, squares)


def _square(grid: Grid, cell: Cell, x: float, width: float, tall: float) -> Square:
    if cell.missing:
        return Square(x, width, "")
    fill = grid.shade(cell)
    text = Text(x + width / 2, tall / 2 + 4, words.short(cell.value, grid.unit), scales.ink(fill)) if tall else None
    return Square(x, width, fill, text)


def _ticks(grid: Grid, xs: list[tuple[float, float]], bottom: float, width: float) -> list[Text]:
    """Labels of the epochs, as many as fit."""
    skip, steps = int(grid.has_random), grid.steps
    room = max(2, int(len(steps) * width / 34))
    chosen = scales.tick_indices(len(steps), room)
    return [Text(xs[i + skip][0] + xs[i + skip][1] / 2, bottom + 15, str(steps[i])) for i in chosen]


def _tops(grid: Grid, xs: list[tuple[float, float]]) -> list[Text]:
    """Words above the columns that mean more than an epoch."""
    named: dict[Column, str] = {RANDOM: "random", 0: "start"}
    if len(grid.steps) > 1 and (grid.steps[0] != 0 or xs[-1][0] - xs[0][0] > 120):
        named[grid.steps[-1]] = "final"
    return [Text(x + w / 2, 14, named[c]) for c, (x, w) in zip(grid.columns, xs, strict=True) if c in named]


_BAR, _PIECES = 240.0, 30


def _bar(grid: Grid, left: float) -> list[Square]:
    stops, size = scales.stops(grid.metric), _BAR / _PIECES
    return [Square(left + i * size, size, scales.colour((i + 0.5) / _PIECES, stops)) for i in range(_PIECES)]


def _bar_ticks(grid: Grid, left: float) -> list[Text]:
    limits, rooted = grid.limits, grid.rooted
    places = [(tick, scales.share(tick, limits, rooted)) for tick in scales.value_ticks(limits, rooted, end=True)]
    return [Text(round(left + _BAR * place, 1), 0, f"{tick:g}") for tick, place in places]
