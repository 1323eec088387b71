"""How what is measured depends on what varies in a sweep, drawn with matplotlib."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerscope.errors import UseError, unknown
from layerscope.plots import house, names, scales, words
from layerscope.plots.curves import upright
from layerscope.plots.means import SEED, Mean, Row, grid_of, grouped, mean, numeric
from layerscope.plots.series import MOST
from layerscope.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVEL = 0.95
BANDS = 6
"""Lines up to which intervals are drawn: those of few runs are wide, and more would hide each other."""
FAR = 1.3
"""An axis goes no further than this times the largest mean, however wide an interval of few runs is."""
SPREAD = 8.0
"""Positive numbers whose largest is this times their smallest, or more, are spread by their logarithm."""


@dataclass(frozen=True)
class Curve:
    """Means over runs, at each value of what varies."""

    name: str
    places: tuple[float, ...]
    means: tuple[Mean, ...]


@dataclass(frozen=True)
class Curves:
    """The lines of one metric. `left_out` counts networks that diverged, `others` lines for which there is no room."""

    metric: str
    unit: str
    lines: tuple[Curve, ...]
    left_out: int = 0
    others: int = 0


def sweep_curves(
    table: Table,
    x: str | None = None,
    metric: str | Sequence[str] | None = None,
    split: str = "test",
    lines: str | Sequence[str] | None = None,
) -> "Figure":
    """How error and loss depend on what varies in a sweep: the mean over seeds against `x`, and a line for each value of
    `lines`.

    `table` is the summary of a sweep (`Sweep.table`), or rows of its maps with one row a network and line. `x` is the first
    numeric name of the grid, if not given; `metric` one or several, a panel each (error and cross_entropy); `lines` the other
    names that vary. Only seeds are averaged over. Bands are 95 % t intervals over runs, for at most 6 lines; without one,
    there is a single run. Networks that diverged are left out, and counted in the title. The axis of `x` is logarithmic where
    its numbers are positive and the largest is 8 times the smallest.
    """
    there = list(dict.fromkeys(table.frame["metric"]))
    wanted = [metric] if isinstance(metric, str) else metric or [m for m in ("error", "cross_entropy") if m in there]
    x = x or _first_number(table)
    panels = [curves_of(table, x, one, split, lines) for one in wanted]
    with house.style():
        height = max(3.4, 0.2 * len(panels[0].lines) + 1.0)
        figure = house.figure(4.4 * len(panels) + 2.2, height)
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(places, panels, strict=True):
            _panel(axes, panel)
            axes.set_xlabel(f"{x} (logarithmic scale)" if axes.get_xscale() == "log" else x, parse_math=False)
            axes.set_title(f"{names.title(panel.metric)} on {split} data", loc="left", parse_math=False)
        _legend(places[-1], panels[0])
        house.headline(figure, _title(table, panels), weight="normal")
    return figure


def curves_of(table: Table, x: str, metric: str, split: str, lines: str | Sequence[str] | None = None) -> Curves:
    """The lines of one metric, as plain values; see `sweep_curves`."""
    varying = grid_of(table)
    beside = [lines] if isinstance(lines, str) else lines
    by = [name for name in varying if name not in (x, SEED)] if beside is None else list(beside)
    for name in (x, *by):
        if name not in table.frame:
            raise unknown("column of this table", name, table.frame.columns)
    if x not in numeric(table):
        raise UseError(f"{x} is no number that varies in this sweep; those are: {', '.join(numeric(table)) or 'none'}")
    if more := [name for name in varying if name not in (x, *by, SEED)]:
        raise UseError(f"{more[0]} varies too, and only seeds are averaged over: name it in lines, or choose its rows")
    rows = table.where(metric=metric, split=split).to_dict("records")
    if not rows:
        raise unknown(f"metric on {split} data", metric, set(table.where(split=split)["metric"]))
    if any(len(several) > 1 for several in grouped(rows, ["run", *by]).values()):
        raise UseError(
            "there are several rows of one network: choose rows first, such as "
            "Table(table.where(perturbation='rewind', step=0), table.provenance)"
        )
    factor, unit = names.shown_unit(metric, rows[0]["unit"])
    good = [{**row, "value": factor * row["value"]} for row in rows if row["status"] == "ok"]
    found = [_curve(_named(by, place), mine, x) for place, mine in grouped(good, by).items()]
    kept = {curve.name for curve in sorted(found, key=_worst, reverse=True)[:MOST]}
    shown = tuple(curve for curve in found if curve.name in kept)
    without = {row["run"] for row in rows} | set(table.provenance.get("diverged", ()))
    left_out = len(without - {row["run"] for row in good})
    return Curves(metric, unit, shown, left_out, len(found) - len(shown))


def _first_number(table: Table) -> str:
    grid_of(table)
    if not (found := numeric(table)):
        raise UseError("this sweep varies no number but its seeds, so that there is nothing to draw against")
    return found[0]


def _named(by: Sequence[str], place: Sequence[Any]) -> str:
    texts = (f"{value:g}" if isinstance(value, float) else str(value) for value in place)
    return ", ".join(text if name == "part" else f"{name} = {text}" for name, text in zip(by, texts, strict=True))


def _curve(name: str, rows: Sequence[Row], x: str) -> Curve:
    found = sorted(grouped(rows, [x]).items())
    return Curve(name, tuple(float(place) for (place,), _ in found), tuple(mean(mine, LEVEL) for _, mine in found))


def _worst(curve: Curve) -> float:
    return max(mean.value for mean in curve.means)


def _panel(axes: "Axes", panel: Curves) -> None:
    for index, curve in enumerate(panel.lines):
        _line(axes, index, curve, band=len(panel.lines) <= BANDS)
    places = sorted({place for curve in panel.lines for place in curve.places})
    _across(axes, places)
    upright(axes, _scale(panel), panel.metric, panel.unit)
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)


def _line(axes: "Axes", index: int, curve: Curve, band: bool) -> None:
    colour = "#" + scales.LINES[index % len(scales.LINES)]
    dash = [float(v) / 1.6 for v in scales.DASHES[index % len(scales.DASHES)].split()]
    axes.plot(
        curve.places,
        [mean.value for mean in curve.means],
        color=colour,
        linestyle=(0, dash) if dash else "-",
        linewidth=1.4,
        marker=scales.MARKERS[index % len(scales.MARKERS)],
        markersize=4,
    )
    if band:
        low, high = ([getattr(mean, end) for mean in curve.means] for end in ("low", "high"))
        axes.fill_between(curve.places, low, high, color=colour, alpha=0.15, linewidth=0)


def _across(axes: "Axes", places: Sequence[float]) -> None:
    """The horizontal axis, with the values there are as its labels where they fit."""
    wide = places[0] > 0 and places[-1] >= SPREAD * places[0]
    if wide:
        axes.set_xscale("log")
    ends = (math.log(places[0]), math.log(places[-1])) if wide else (places[0], places[-1])
    kept: list[float] = []
    for place in places:
        at = math.log(place) if wide else place
        if not kept or at - (math.log(kept[-1]) if wide else kept[-1]) > 0.07 * (ends[1] - ends[0]):
            kept.append(place)
    axes.set_xticks(kept, [f"{place:g}" for place in kept])
    axes.set_xticks([], minor=True)


def _scale(panel: Curves) -> scales.Scale:
    """From zero, linear, as such curves are printed; losses that span orders of magnitude are logarithmic."""
    found = [mean for curve in panel.lines for mean in curve.means]
    values = [mean.value for mean in found]
    most = min(FAR * max(values), 100.0) if panel.unit.startswith("%") else FAR * max(values)
    ends = [min(mean.high, most) for mean in found if math.isfinite(mean.high)]
    spread = scales.of_amounts(values)
    if spread.kind == "log" and not panel.unit.startswith(("%", "percentage")):
        return spread
    return scales.from_zero([*values, *ends], "linear")


def _legend(axes: "Axes", panel: Curves) -> None:
    labels = words.labels([curve.name for curve in panel.lines])
    if len(labels) < 2:
        return
    legend = axes.legend(axes.lines, ["-"] * len(labels), fontsize=8, handlelength=3.4, loc="upper left")
    legend.set_bbox_to_anchor((1.01, 1.0))
    for text, name in zip(legend.get_texts(), labels.values(), strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def _title(table: Table, panels: Sequence[Curves]) -> str:
    """How many networks, on which data, and what lines and bands are."""
    counts = {mean.n for panel in panels for curve in panel.lines for mean in curve.means}
    fewest, most = min(counts), max(counts)
    runs = f"n = {most}" if fewest == most else f"n = {fewest} to {most}"
    band = f", bands: {100 * LEVEL:g} % t interval of the mean" if len(panels[0].lines) <= BANDS else ""
    over = "one run each" if most == 1 else f"mean over seeds{band}, {runs} runs a point"
    data = words.data_name(table.provenance)
    networks = words.plural(len(set(table.frame["run"])), "network")
    said = [f"{networks}{f' on {data}' if data else ''}; {over}."]
    if left_out := max(panel.left_out for panel in panels):
        said.append(f"{words.plural(left_out, 'network')} diverged and {'is' if left_out == 1 else 'are'} left out.")
    if others := panels[0].others:
        said.append(
            f"Lines: the {len(panels[0].lines)} of {len(panels[0].lines) + others} that are the worst somewhere."
        )
    return "\n".join(said)
