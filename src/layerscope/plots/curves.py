"""Lines over epochs, as Figs. 17 and 18 of zhang2022, and the curves of training, drawn with matplotlib."""

import math
from typing import TYPE_CHECKING, Any

from layerscope.plots import house, names, scales, words
from layerscope.plots.grid import unmodified
from layerscope.plots.series import Line, Panel, layer_panel, training_panels
from layerscope.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BANDS = 12
"""Lines up to which intervals are drawn; more would hide each other."""


def layer_curves(table: Table, metric: str | None = None, split: str = "test") -> "Figure":
    """How a metric (the deciding one) depends on the epoch that a Part is put back to: one line a Part.

    Any metric of the table; distance_l2 and distance_max are the distances from the start at each epoch.
    Early epochs are spread: the axis is linear to 1, logarithmic after. Lines differ in marker and dash, not
    in colour alone. Bands are the intervals of the table, for at most 12 lines. Of more than 24 Parts, those
    are drawn that have the worst numbers (or moved furthest), and the title says so.
    Source: zhang2022, Figs. 17 and 18.
    """
    panel = layer_panel(table, metric, split)
    distance, step, part = panel.metric.startswith("distance_"), panel.about.step, panel.about.part
    data = words.data_name(table.provenance)
    origin = "its pretrained values" if panel.about.pretrained else "its start"
    title = f"How far each {part} is from {origin}" if distance else f"One {part} put back, {data} {split} data"
    with house.style():
        columns = 1 if len(panel.lines) <= 16 else 2
        figure = house.figure(8.4 + 3 * (columns - 1), max(3.6, 0.2 * math.ceil(len(panel.lines) / 2) + 1.2))
        axes = figure.add_subplot()
        draw(axes, panel)
        if not distance:
            _reference(axes, table, panel.metric, split)
        axes.set_title(f"{title.replace('  ', ' ')}\n{panel.chosen()}".rstrip(), loc="left", parse_math=False)
        axes.set_xlabel(f"{step}{'' if distance else f' whose values the {part} is put back to'} (early ones spread)")
        legend(axes, panel, loc="upper left", bbox_to_anchor=(1.01, 1.0), ncols=columns)
    return figure


def training_curves(training: Table) -> "Figure":
    """How the training went: error and loss over epochs, on training and test data."""
    panels = training_panels(training)
    with house.style():
        figure = house.figure(4.4 * len(panels), 3.2)
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            draw(axes, panel)
            axes.set_title(names.title(panel.metric), loc="left", parse_math=False)
            axes.set_xlabel(panel.about.step)
            legend(axes, panel, loc="upper right")
    return figure


def draw(axes: "Axes", panel: Panel) -> None:
    """The lines of a panel over epochs, early ones spread, with its vertical axis."""
    for index, line in enumerate(panel.lines):
        _line(axes, index, line, band=len(panel.lines) <= BANDS)
    last = panel.last()
    axes.set_xscale("symlog", linthresh=1, linscale=0.43)
    axes.set_xlim(-0.06, last * 1.04)
    axes.set_xticks(scales.early_ticks(last), [str(t) for t in scales.early_ticks(last)])
    axes.set_xticks([], minor=True)
    upright(axes, panel.scale, panel.metric, panel.unit)
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)


def legend(axes: "Axes", panel: Panel, **place: Any) -> None:
    """The names of a panel's lines, set after the fact: matplotlib drops those that begin with _ and reads $ as a formula."""
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("unmodified")]
    more = [line for line in axes.lines if line not in lines]
    labels = [*words.labels([line.name for line in panel.lines]).values(), *["unmodified"] * len(more)]
    box = axes.legend([*lines, *more], ["-"] * len(labels), fontsize=8, handlelength=3.4, **place)
    for text, name in zip(box.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def upright(axes: "Axes", scale: scales.Scale, metric: str, unit: str) -> None:
    """The vertical axis: errors and losses by their square root or logarithm, as the colours of maps."""
    import numpy as np

    scale = scale.with_margin(1.05)
    if scale.words:
        functions = tuple(np.vectorize(convert, otypes=[float]) for convert in (scale.up, scale.value))
        axes.set_yscale("function", functions=functions)
    ticks = scale.ticks()
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set_ylim(scale.low, scale.high)
    name = unit if unit.startswith("%") else f"{names.title(metric)}\n({unit})"
    axes.set_ylabel(name.removesuffix("\n()") + (f"\n({scale.words} scale)" if scale.words else ""), parse_math=False)


def _line(axes: "Axes", index: int, line: Line, band: bool) -> None:
    colour = "#" + scales.LINES[index % len(scales.LINES)]
    dash = [float(v) / 1.6 for v in scales.DASHES[index % len(scales.DASHES)].split()]
    axes.plot(
        line.epochs,
        line.values,
        color=colour,
        linestyle=(0, dash) if dash else "-",
        linewidth=1.4,
        marker=scales.MARKERS[index % len(scales.MARKERS)],
        markersize=4,
        markevery=_marked(line.epochs, index),
    )
    if band and line.has_band:
        axes.fill_between(line.epochs, line.low, line.high, color=colour, alpha=0.15, linewidth=0)


def _marked(epochs: tuple[int, ...], index: int) -> list[int]:
    """Which points get a marker: the first few, then ever fewer, shifted a little from line to line."""
    marked, place = [], -1.0
    for i, epoch in enumerate(epochs):
        if i == 0 or scales.early(epoch) - place > 0.16 + 0.013 * (index % 5):
            marked, place = [*marked, i], scales.early(epoch)
    return marked


def _reference(axes: "Axes", table: Table, metric: str, split: str) -> None:
    """The unmodified network, as a line to compare with."""
    cell = unmodified(table, metric, split)
    if not cell.missing:
        axes.axhline(cell.value, color="#555555", linewidth=0.8, linestyle=(0, (1, 2)), label="unmodified")
