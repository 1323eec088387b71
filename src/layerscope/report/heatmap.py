"""A map as squares and labels with their places, for the SVG template. Pixels, y down."""

from collections.abc import Sequence
from dataclasses import dataclass

from layerscope.plots import scales, words
from layerscope.plots.grid import RANDOM, WHOLE, Cell, Column, Grid
from layerscope.report import captions

LABEL = 28
"""Characters that the name of a row gets, and more where that is needed to tell names apart."""
LONGEST = 48
"""Characters that it never exceeds."""
PRINTED = 16
"""Columns up to which the numbers are printed in the cells."""
TALL = 40
"""Rows from which a map scrolls in a box, with its scale at the top and the heads of its columns every so often."""
EVERY = 20
"""Rows between two such heads."""
_SCALE, _HEADS = 64.0, 24.0
"""Height of the scale with its labels, and of the heads of columns within a map."""


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
    """`name` is the whole name where the label is not."""

    label: str
    name: str
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
    bar_y: float
    bar_ticks: list[Text]
    bar_title: str
    axis: str
    missing: bool
    tall: bool

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
    labels = words.labels(grid.rows, LABEL, LONGEST)
    left = 14 + 7.2 * max(len(label) for label in labels.values())
    width = _cell_width(len(grid.columns))
    xs = _columns(grid, left, width)
    row_height, tall = _row_height(grid), len(grid.rows) > TALL
    tops = _places(grid, row_height, tall)
    bottom = tops[-1] + row_height
    printed = len(grid.columns) <= PRINTED and row_height >= 18
    ticks = _ticks(grid, xs, bottom, width)
    bar_title = f"{grid.amount} {words.about_scale(grid, 'colour scale')}".rstrip()
    return Picture(
        width=max(xs[-1][0] + xs[-1][1] + 12, left + 300, left + 12 + 6.6 * len(bar_title)),
        height=bottom + (48 if tall else 98),
        left=left,
        row_height=row_height,
        bottom=bottom,
        rows=[_row(grid, i, labels, y, xs, row_height if printed else 0) for i, y in enumerate(tops)],
        ticks=ticks,
        tops=[top for y in _heads(tops, tall) for top in _tops(grid, xs, y, ticks if tall else ())],
        bar=_bar(grid, left),
        bar_y=6 if tall else bottom + 50,
        bar_ticks=_bar_ticks(grid, left),
        bar_title=bar_title,
        axis=captions.axis(grid),
        missing=bool(grid.reasons()),
        tall=tall,
    )


def _row_height(grid: Grid) -> float:
    """Few rows are tall; many have room for numbers where there are few columns."""
    rows = len(grid.rows)
    return 26.0 if rows <= 12 else 18.0 if rows <= 30 or len(grid.columns) <= PRINTED else 14.0


def _places(grid: Grid, height: float, tall: bool) -> list[float]:
    """Where each row begins."""
    begin = 20 + (_SCALE if tall else 0)
    apart = [7.0 if name == WHOLE and len(grid.rows) > 1 else 0.0 for name in grid.rows]
    heads = [_HEADS * (i // EVERY) if tall else 0.0 for i in range(len(grid.rows))]
    return [begin + i * height + apart[i] + heads[i] for i in range(len(grid.rows))]


def _heads(tops: list[float], tall: bool) -> list[float]:
    """Where the heads of columns stand: above the first row, in tall maps again every 20 rows."""
    return [y - 6 for y in (tops[::EVERY] if tall else tops[:1])]


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


def _row(
    grid: Grid, index: int, labels: dict[str, str], y: float, xs: list[tuple[float, float]], printed: float
) -> Row:
    """`printed` is the height of a row that has its numbers in it, else 0."""
    name, cells = grid.rows[index], zip(grid.cells[index], xs, strict=True)
    squares = [_square(grid, cell, x, width, printed) for cell, (x, width) in cells]
    return Row(labels[name], "" if labels[name] == name else name, y, squares)


def _square(grid: Grid, cell: Cell, x: float, width: float, printed: float) -> Square:
    if cell.missing:
        return Square(x, width, "")
    fill, place = grid.shade(cell), (x + width / 2, printed / 2 + 4)
    text = Text(*place, words.short(cell.value, grid.unit), scales.ink(fill)) if printed else None
    return Square(x, width, fill, text)


def _ticks(grid: Grid, xs: list[tuple[float, float]], bottom: float, width: float) -> list[Text]:
    """Labels of the epochs, as many as fit."""
    skip, steps = int(grid.has_random), grid.steps
    longest = max((len(str(step)) for step in steps), default=0)
    room = max(2, int(len(steps) * width / max(34, 7.5 * longest)))
    chosen = scales.tick_indices(len(steps), room)
    return [Text(xs[i + skip][0] + xs[i + skip][1] / 2, bottom + 15, str(steps[i])) for i in chosen]


def _tops(grid: Grid, xs: list[tuple[float, float]], y: float, ticks: Sequence[Text] = ()) -> list[Text]:
    """Words above the columns that mean more than an epoch; with `ticks`, those of other columns too."""
    named: dict[Column, str] = {RANDOM: "random", 0: grid.about.start}
    if len(grid.steps) > 1 and (grid.steps[0] != 0 or xs[-1][0] - xs[-len(grid.steps)][0] > 44):
        named[grid.steps[-1]] = "final"
    found = [Text(x + w / 2, y, named[c]) for c, (x, w) in zip(grid.columns, xs, strict=True) if c in named]
    return found + [Text(tick.x, y, tick.text) for tick in ticks if all(abs(tick.x - near.x) > 30 for near in found)]


_BAR, _PIECES = 240.0, 30


def _bar(grid: Grid, left: float) -> list[Square]:
    stops, size = scales.stops(grid.metric), _BAR / _PIECES
    return [Square(left + i * size, size, scales.colour((i + 0.5) / _PIECES, stops)) for i in range(_PIECES)]


def _bar_ticks(grid: Grid, left: float) -> list[Text]:
    ticks = grid.scale.ticks(end=True)
    return [Text(round(left + _BAR * grid.scale.shade(tick), 1), 0, f"{tick:g}") for tick in ticks]
