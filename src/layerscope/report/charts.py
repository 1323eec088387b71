"""A line picture as paths with their places, for the SVG template. Pixels, y down."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from layerscope.plots import names, scales, words
from layerscope.plots.curves import BANDS
from layerscope.plots.series import Line, Panel

LEFT, TOP, WIDTH, HEIGHT, LEGEND = 58.0, 30.0, 680.0, 260.0, 200.0

MARKERS = {
    "o": "m-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0z",
    "s": "m-3-3h6v6h-6z",
    "^": "m0-4l4 7h-8z",
    "D": "m0-4.4l4.4 4.4l-4.4 4.4l-4.4-4.4z",
    "v": "m0 4l4-7h-8z",
    "P": "m-1.2-4h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8z",
    "X": "m-3.6-2l1.6-1.6l2 2l2-2l1.6 1.6l-2 2l2 2l-1.6 1.6l-2-2l-2 2l-1.6-1.6l2-2z",
}
"""Markers as relative paths around a point."""

Place = Callable[[float], float]


@dataclass(frozen=True)
class Curve:
    """One line: its colour class, dash, path, markers, band and legend."""

    name: str
    colour: int
    dash: str
    path: str
    marks: str
    band: str
    legend_y: float
    legend_mark: str


@dataclass(frozen=True)
class Chart:
    """A drawn line picture."""

    id: str
    title: str
    unit: str
    about: str
    axis: str
    width: float
    height: float
    top: float
    bottom: float
    right: float
    curves: list[Curve]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    bands: bool


def chart(identity: str, panel: Panel, axis: str, about: str = "") -> Chart:
    """The paths, axes and legend of a line picture; early epochs are spread."""
    last, scale = panel.last(), panel.scale.with_margin(1.04)
    labels = words.labels([line.name for line in panel.lines], 30, 48)
    legend = 80 + 6.8 * max((len(label) for label in labels.values()), default=0)
    x: Place = lambda epoch: LEFT + 8 + (WIDTH - 16) * scales.early(epoch) / scales.early(max(last, 1))  # noqa: E731
    y: Place = lambda value: TOP + HEIGHT * (1 - scale.up(value))  # noqa: E731
    bands = len(panel.lines) <= BANDS
    return Chart(
        id=identity,
        title=names.title(panel.metric),
        unit=(panel.unit or names.noun(panel.metric)) + (f" ({scale.words} scale)" if scale.words else ""),
        about=about,
        axis=f"{axis} (early ones spread)",
        width=LEFT + WIDTH + max(LEGEND, legend),
        height=max(TOP + HEIGHT + 46, TOP + 18 * len(panel.lines) + 10),
        top=TOP,
        bottom=TOP + HEIGHT,
        right=LEFT + WIDTH,
        curves=[_curve(i, line, labels[line.name], x, y, bands) for i, line in enumerate(panel.lines)],
        x_ticks=[(round(x(tick), 1), str(tick)) for tick in scales.early_ticks(last)],
        y_ticks=[(round(y(tick), 1), f"{tick:g}") for tick in scale.ticks()],
        bands=bands and any(line.has_band for line in panel.lines),
    )


def _curve(index: int, line: Line, label: str, x: Place, y: Place, bands: bool) -> Curve:
    shape = MARKERS[scales.MARKERS[index % len(scales.MARKERS)]]
    points = [(x(epoch), y(value)) for epoch, value in zip(line.epochs, line.values, strict=True)]
    legend_y = TOP + 6 + 18 * index
    return Curve(
        name=label,
        colour=index % len(scales.LINES),
        dash=scales.DASHES[index % len(scales.DASHES)],
        path=_path(points),
        marks="".join(f"M{_point(p)}{shape}" for p in _marked(points, index)),
        band=_band(line, x, y) if bands and line.has_band else "",
        legend_y=legend_y,
        legend_mark=f"M{_point((LEFT + WIDTH + 32, legend_y))}{shape}",
    )


def _point(point: tuple[float, float]) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(_point(point) for point in points) if points else ""


def _band(line: Line, x: Place, y: Place) -> str:
    """The outline of the intervals: along the upper ends, back along the lower."""
    ends = [p for p in zip(line.epochs, line.low, line.high, strict=True) if math.isfinite(p[1])]
    upper = [(x(epoch), y(high)) for epoch, _, high in ends]
    lower = [(x(epoch), y(low)) for epoch, low, _ in reversed(ends)]
    return _path(upper + lower) + "z"


def _marked(points: list[tuple[float, float]], index: int) -> list[tuple[float, float]]:
    """The points that get a marker: at least 40 pixels apart, a little differently from line to line."""
    marked: list[tuple[float, float]] = []
    for point in points:
        if not marked or point[0] - marked[-1][0] > 40 + 3 * (index % 5):
            marked.append(point)
    return marked
