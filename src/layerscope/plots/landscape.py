"""What lies around the way from start to trained: where it falls, how wide it is, in words, tables and pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from layerscope.partition import WHOLE
from layerscope.plots import house, names, scales, words
from layerscope.plots.about import About, deciding
from layerscope.plots.curves import upright
from layerscope.plots.grid import Record, records
from layerscope.plots.names import WORSENING, shown_unit
from layerscope.plots.weights import Listing
from layerscope.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIMIT = 0.1
"""The mean error up to which a place bears noise, where nobody says: that of chatterji2020."""
ENDS = 3
"""Lines that are coloured, of the Parts that are worst at the start, and as many of those that are best."""
PANELS = 12
"""Valleys of a picture."""
HIGH, LOW, ALL, OTHERS = "#b34a00", "#0072b2", "#222222", "#c4c4c4"
"""Colours of lines: the worst at the start, the best, all Parts at once, and the others."""
STYLES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))


class Width(NamedTuple):
    """How much noise a place bears: the largest `sigma` of the grid up to which the mean stays at most a limit (0 where only the
    place without noise does, NaN where not even that), `sure` by the upper ends of intervals over draws, each for itself;
    whether that sigma is the `largest` of the grid, so that it may bear more."""

    part: str
    alpha: float
    sigma: float
    sure: float
    largest: bool


@dataclass(frozen=True)
class Falls:
    """Where curves surely fall toward the start: `rows` of the table whose intervals lie below 0, the surest first, of so many
    `pairs` with an interval; the row of the `lowest` end of an interval, the most that any pair may fall; and how many pairs
    there were `without` an interval."""

    rows: list[Record]
    lowest: Record | None
    pairs: int
    without: int

    @property
    def curves(self) -> list[str]:
        """The curves that fall somewhere, by Part, noise and split, in words."""
        return list(dict.fromkeys(_curve(row) for row in self.rows))


@dataclass(frozen=True)
class Line:
    """Numbers of a Part along its way, in the unit people read; NaN where there is none."""

    name: str
    alphas: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def falls(table: Table, metric: str | None = None, split: str | None = None, noise: bool | None = None) -> Falls:
    """Where a metric (the deciding one) surely gets better toward the start; see `analyses.landscape`. On a split, or all; of
    curves with noise, or without, or both."""
    where = {"metric": f"{metric or deciding(table)}{WORSENING}", **({"split": split} if split else {})}
    kinds = {None: ("interpolate", "noise"), True: ("noise",), False: ("interpolate",)}[noise]
    found = [row for row in records(table.where(**where)) if row["perturbation"] in kinds]
    known = [row for row in found if row["status"] == "ok" and row["low"] is not None]
    sure = sorted((row for row in known if row["high"] < 0), key=lambda row: row["high"])
    lowest = min(known, key=lambda row: row["low"], default=None)
    return Falls(sure, lowest, len(known), len(found) - len(known))


def widths(table: Table, metric: str = "error", limit: float = LIMIT, split: str | None = None) -> list[Width]:
    """How much noise each place of each Part bears with a mean `metric` of at most `limit` (in the unit of the table), on the
    training data, where there are no such on the test data. The mean is over draws, of both sides where they are told apart
    (the upper end is the mean of theirs: their draws are the same, so that it is rather too high than too low).
    """
    rows = records(table.where(metric=metric, split=split or _split(table)))
    still = {(row["part"], row["alpha"]): row for row in rows if row["perturbation"] == "interpolate"}
    noisy: dict[tuple[str, float, float], list[Record]] = {}
    for row in rows:
        if row["perturbation"] == "noise" and row["status"] != "not applicable":
            noisy.setdefault((row["part"], row["alpha"], row["sigma"]), []).append(row)
    return [_width(place, row, noisy, limit) for place, row in still.items() if row["status"] != "not applicable"]


def _width(
    place: tuple[str, float],
    still: Record,
    noisy: Mapping[tuple[str, float, float], Sequence[Record]],
    limit: float,
) -> Width:
    cells = [(sigma, rows) for (part, alpha, sigma), rows in sorted(noisy.items()) if (part, alpha) == place]
    ends = [0.0, *(sigma for sigma, _ in cells)]
    means = [(_number(still, "value"),) * 2, *(_mean(rows) for _, rows in cells)]
    borne = [_last([mean[which] <= limit for mean in means]) for which in (0, 1)]
    sigma, sure = (math.nan if at < 0 else ends[at] for at in borne)
    return Width(*place, sigma, sure, borne[0] == len(cells) and bool(cells))


def _mean(rows: Sequence[Record]) -> tuple[float, float]:
    """The mean over draws and the upper end of its interval; infinite where a draw has no number, or there is no interval."""
    values = [_number(row, "value") for row in rows if row.get("draw") is not None]
    highs = [_number(row, "high") for row in rows if row.get("draw") is None]
    return sum(values) / len(values), sum(highs) / len(highs) if highs else math.inf


def _number(row: Record, name: str) -> float:
    return row[name] if row["status"] == "ok" and row[name] is not None else math.inf


def _last(holds: Sequence[bool]) -> int:
    """The last index up to which all hold, -1 where the first does not."""
    return next((index for index, each in enumerate(holds) if not each), len(holds)) - 1


def sentences(table: Table) -> list[str]:
    """What was done, how far the ends of the ways differ, whether anything falls toward the start, and how wide the ways are."""
    about, metric, split = About.of(table), deciding(table), _split(table, "test")
    lines = lines_of(table, metric, split)
    said = [_done(table, about, lines, split)]
    if lines:
        said += [_ends(table, about, metric, split, lines), _falls(table, metric, noise=False)]
        said += [_falls(table, metric, noise=True)] if _sigmas(table) and "side" not in table.frame else []
    if _sigmas(table) and "error" in set(table.frame["metric"]):
        said += _widths(table, about)
    refused = [row for row in records(table.where(status="not applicable")) if row.get("alpha_b") is None]
    for reason in dict.fromkeys(row["reason"] for row in refused):
        parts = dict.fromkeys(_called(row["part"]) for row in refused if row["reason"] == reason)
        said.append(f"Not measured, in whole or in part: {words.listed(list(parts))}: {reason}.")
    failed = records(table.where(status="failed"))
    if failed:
        count = len({row["variant"] for row in failed})
        said.append(
            f"{words.plural(count, 'network')} failed, first {_called(failed[0]['part'])}: {failed[0]['reason']}."
        )
    return said


def _done(table: Table, about: About, lines: Sequence[Line], split: str) -> str:
    alone = [line for line in lines if line.name != WHOLE]
    alphas = sorted(set(table.frame["alpha"].dropna()))
    who = [f"{words.plural(len(alone), about.part)}, {'' if len(alone) == 1 else 'each '}alone"] if alone else []
    who += [f"all {about.part}s at once"] if len(alone) < len(lines) else []
    if not who:
        return f"No {about.part} could be put on the way from its start to its trained values."
    n = max((row["n"] or 0 for row in records(table.where(perturbation="none", split=split))), default=0)
    noise = ""
    if sigmas := _sigmas(table):
        each = " on each side of the way" if "side" in table.frame else ""
        noise = (
            f" At every place normal noise was added too, of {words.plural(len(sigmas), 'standard deviation')} "
            f"({_few(sigmas)}), in {words.plural(_draws(table), 'draw')}{each}."
        )
    data = " ".join(filter(None, [words.data_name(table.provenance), split]))
    return (
        f"{', and '.join(who)}, had values on the straight way from {about.origin} (0) to trained (1), at "
        f"{words.plural(len(alphas), 'place')}; everything else stayed trained. Measured on {words.count(n)} "
        f"{data} {names.counted(deciding(table))}s{_and_train(table, split)}.{noise}"
    )


def _and_train(table: Table, split: str) -> str:
    others = [other for other in _splits(table) if other != split]
    return f", and on {words.listed(others)} data" if others else ""


def _ends(table: Table, about: About, metric: str, split: str, lines: Sequence[Line]) -> str:
    """The values at the start of the ways."""
    _, unit = _unit(table, metric)
    alone = sorted(
        (line for line in lines if line.name != WHOLE and math.isfinite(line.values[0])),
        key=lambda line: line.values[0],
    )
    where = f"At {about.origin}" if lines[0].alphas[0] == 0 else f"At {lines[0].alphas[0]:g}"
    said = []
    if alone:
        worst, best = (alone[0], alone[-1]) if about.higher else (alone[-1], alone[0])
        said.append(f"{worst.name} matters most ({words.quantity(worst.values[0], unit)})")
        said += [f"{best.name} least ({words.quantity(best.values[0], unit)})"] if best != worst else []
    said += [f"all at once give {words.quantity(line.values[0], unit)}" for line in lines if line.name == WHOLE]
    own = records(table.where(perturbation="none", metric=metric, split=split))
    factor, _ = _unit(table, metric)
    trained = f"; the trained network has {words.quantity(factor * own[0]['value'], unit)}" if own else ""
    return f"{where}, {', '.join(said)}{trained} on {split} data."


def _falls(table: Table, metric: str, noise: bool) -> str:
    """Whether any curve falls toward the start."""
    found = falls(table, metric, noise=noise)
    kind = "with noise" if noise else "without noise"
    noun, (factor, _) = names.noun(metric), _unit(table, metric)
    unit = shown_unit(f"{metric}{names.DELTA}", _raw_unit(table, metric))[1]
    better = "rises" if About.of(table).higher else "falls"
    if found.lowest is None:
        return (
            f"Whether {noun} {better} anywhere toward the start {kind} cannot be said: no two places could be compared."
        )
    level = f"{100 * float(found.lowest['level']):g} %"
    pairs = words.plural(found.pairs, "pair")
    base = f"intervals hold at {level} for all comparisons of this table at once"
    missing = f" {words.plural(found.without, 'pair')} could not be compared." if found.without else ""
    if found.rows:
        row = found.rows[0]
        return (
            f"Of {pairs} of places {kind}, {noun} surely {better} toward the start in {words.count(len(found.rows))}, on "
            f"{words.plural(len(found.curves), 'curve')}: {words.listed(found.curves, 4)}; most surely {_curve(row)} from "
            f"{row['alpha_b']:g} to {row['alpha']:g}, by {words.quantity(-factor * row['value'], unit)} "
            f"({words.number(-factor * row['high'], unit)} to {words.number(-factor * row['low'], unit)}; {base}).{missing}"
        )
    row = found.lowest
    open_ = words.quantity(max(0.0, -factor * row["low"]), unit)
    return (
        f"Of {pairs} of places {kind}, in none {noun} surely {better} toward the start ({base}); the most that they leave open "
        f"is {open_} ({_curve(row)}, from {row['alpha_b']:g} to {row['alpha']:g}).{missing}"
    )


def _widths(table: Table, about: About) -> list[str]:
    """The widest and the narrowest way, by the narrowest place of each."""
    split = _split(table)
    found: dict[str, list[Width]] = {}
    for width in widths(table):
        found.setdefault(width.part, []).append(width)
    narrowest = {
        part: min(all_, key=lambda width: -1.0 if math.isnan(width.sigma) else width.sigma)
        for part, all_ in found.items()
    }
    if not narrowest:
        return []
    said = [f"{_called(part)}: {_borne(width)} (at {width.alpha:g})" for part, width in narrowest.items()]
    return [
        f"How wide each way is at its narrowest place, as the standard deviation of noise up to which the mean error on {split} "
        f"data stays at most {100 * LIMIT:g} %: {'; '.join(words.some(said, 13))}."
    ]


def _borne(width: Width) -> str:
    """A width in words."""
    if math.isnan(width.sigma):
        return "none, not even without noise"
    if width.sigma == 0:
        return "less than the smallest"
    return f"{width.sigma:g}{' or more' if width.largest else ''}"


def listings(table: Table) -> list[Listing]:
    """The ends and the middle of each way, on each split; how wide each way is along it."""
    found = [_along(table, split) for split in _splits(table)]
    if _sigmas(table) and "error" in set(table.frame["metric"]):
        found.append(_wide(table))
    return [listing for listing in found if listing.rows]


def _along(table: Table, split: str) -> Listing:
    about, metric = About.of(table), deciding(table)
    lines = lines_of(table, metric, split)
    _, unit = _unit(table, metric)
    change = shown_unit(f"{metric}{names.DELTA}", _raw_unit(table, metric))[1]
    found = falls(table, metric, split, noise=False)
    factor, _ = _unit(table, metric)
    alphas = lines[0].alphas if lines else ()
    chosen = sorted({0, len(alphas) // 2, len(alphas) - 1}) if alphas else []
    rows = []
    for line in lines:
        mine = [
            row
            for row in records(table.where(metric=f"{metric}{WORSENING}", split=split, part=line.name))
            if _still(row)
        ]
        lows = [row["low"] for row in mine if row["low"] is not None]
        surely = sum(row["part"] == line.name for row in found.rows)
        left = words.number(max(0.0, -factor * min(lows)), change) if lows else "-"
        rows.append([_called(line.name), *(words.number(line.values[i], unit) for i in chosen), str(surely), left])
    heads = [_place(alphas[i], about) for i in chosen]
    level = float(table.provenance["simultaneous"]["level"])
    caption = (
        f"{names.title(metric)}{_in(unit)} of {split} data on the way from {about.origin} to trained, without noise; in how many "
        f"pairs of places it surely falls toward the start, and the most that a fall may be ({change}; intervals hold at "
        f"{100 * level:g} % for all comparisons at once)."
    )
    return Listing(caption, [about.part, *heads, "sure falls", "falls by at most"], rows)


def _wide(table: Table) -> Listing:
    about, split = About.of(table), _split(table)
    found: dict[str, dict[float, Width]] = {}
    for width in widths(table):
        found.setdefault(width.part, {})[width.alpha] = width
    alphas = sorted({alpha for places in found.values() for alpha in places})
    chosen = [alphas[i] for i in scales.tick_indices(len(alphas), 6)]
    rows = [[_called(part), *(_short(places.get(alpha)) for alpha in chosen)] for part, places in found.items()]
    caption = (
        f"Width of the way: the largest standard deviation of noise up to which the mean error on {split} data, over "
        f"{words.plural(_draws(table), 'draw')}, stays at most {100 * LIMIT:g} %; 0: none of those asked "
        f"({_few(_sigmas(table))}); -: not even without noise."
    )
    return Listing(caption, [about.part, *(_place(alpha, about) for alpha in chosen)], rows)


def _short(width: Width | None) -> str:
    if width is None or math.isnan(width.sigma):
        return "-"
    return f"{width.sigma:g}{' or more' if width.largest else ''}"


READING = {
    "path": "From left to right one module goes from its start to its trained values, while all others stay "
    "trained; the curve of the whole network goes with all modules at once. A curve that is low from "
    "the left on belongs to a module whose training can be undone, one that falls only near the right "
    "edge to a critical one.",
    "path_sigma": "The same ways, with normal noise added at each place: the mean over draws. What stays low bears "
    "that noise.",
    "valley": "From left to right one module goes from its start to its trained values; up and down is noise of "
    "growing strength, upwards in directions along the start, downwards against it. A valley is wide "
    "where the colour of the trained network (right, middle) goes on.",
}
"""Figure (what its name begins with) -> how to read it."""


def figures(table: Table) -> dict[str, "Figure"]:
    """`path`: curves without noise; `path_sigma_S`: with noise of that standard deviation; `valley_METRIC_SPLIT`: both sides."""
    if not lines_of(table, deciding(table), _split(table, "test")):
        return {}
    found = {"path": path_curves(table)}
    if "side" in table.frame:
        found |= {f"valley_{m}_{s}": valley(table, m, s) for m in _metrics(table) for s in _splits(table)}
        return found
    return found | {f"path_sigma_{sigma:g}": path_curves(table, sigma) for sigma in _sigmas(table)}


def path_curves(table: Table, sigma: float | None = None) -> "Figure":
    """How each metric changes along the ways, a panel a metric and split; with `sigma`, the mean over draws of that noise.

    Coloured are the Parts that are worst and best at the start by the deciding metric, without noise, and all at once; others
    are grey. The worst, the best and all at once have bands: intervals, each for itself. Axes follow the square root or the
    logarithm, as in the maps.
    Source: chatterji2020, Fig. 4 (without noise) and Fig. 10 (with noise).
    """
    about, metrics, splits = About.of(table), _metrics(table), _splits(table)
    looks = _looks(lines_of(table, metrics[0], splits[-1]), about)
    with house.style():
        figure = house.figure(4.9 * len(splits) + 0.4, 3.3 * len(metrics) + 0.6)
        panels = figure.subplots(len(metrics), len(splits), squeeze=False)
        for row, metric in zip(panels, metrics, strict=True):
            for axes, split in zip(row, splits, strict=True):
                _curves(axes, table, metric, split, sigma, looks)
                axes.set_title(f"{names.title(metric)} on {split} data", loc="left", parse_math=False)
                axes.set_xlabel(f"place on the way: {about.start} (0) to trained (1)")
        house.headline(figure, _path_title(table, about, sigma, looks), weight="normal")
    return figure


def valley(table: Table, metric: str, split: str) -> "Figure":
    """A metric along the way and beside it, a panel a Part (at most 12): the mean over draws on each side. The line is where
    the mean error is `LIMIT`. Rows are the standard deviations that were asked, whatever their distances.

    Source: chatterji2020, Fig. 1. Differs from the paper: its noise is not to be known; here each row is one standard deviation.
    """
    import numpy as np

    about = About.of(table)
    factor, unit = _unit(table, metric)
    cells = _valleys(table, metric, split)
    shown = dict(list(cells.items())[:PANELS])
    values = [factor * value for grid in shown.values() for value in grid.values() if math.isfinite(value)]
    scale = _scale(metric, unit, values)
    columns = min(4, len(shown))
    lines = math.ceil(len(shown) / columns)
    sigmas = [0.0, *_sigmas(table)]
    signed = [*(-sigma for sigma in reversed(sigmas[1:])), *sigmas]
    alphas = sorted({alpha for grid in shown.values() for alpha, _ in grid})
    with house.style():
        figure = house.figure(3.0 * columns + 1.6, (0.17 * len(signed) + 1.5) * lines + 0.7)
        panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes, (part, grid) in zip(panels.flat, shown.items(), strict=False):
            found = np.array([[factor * grid.get((alpha, y), math.nan) for alpha in alphas] for y in signed])
            _heat(axes, found, alphas, signed, scale, metric, factor)
            axes.set_title(_called(part), loc="left", parse_math=False)
        for axes in panels.flat[len(shown) :]:
            axes.set_visible(False)
        for axes in panels.flat[max(0, len(shown) - columns) : len(shown)]:
            axes.tick_params(labelbottom=True)
        for axes in panels[:, 0]:
            axes.set_ylabel("σ of the noise, − and +\nby its side of the way")
        house.below(figure, f"place on the way: {about.start} at the left (0), trained at the right (1)")
        _bar(figure, panels, scale, metric, unit)
        house.headline(figure, _valley_title(table, about, metric, split, len(cells)), weight="normal")
    return figure


def lines_of(table: Table, metric: str, split: str, sigma: float | None = None) -> list[Line]:
    """The curves of all Parts, from the start on: without noise, or the means over draws of that `sigma`."""
    rows = records(table.where(metric=metric, split=split))
    kind = "interpolate" if sigma is None else "noise"
    mine = [
        row
        for row in rows
        if row["perturbation"] == kind
        and (sigma is None or (row["sigma"] == sigma and row["draw"] is None and not row.get("side")))
        and row["status"] != "not applicable"
    ]
    factor, _ = _unit(table, metric)
    found: dict[str, list[Record]] = {}
    for row in mine:
        found.setdefault(row["part"], []).append(row)
    return [_line(part, sorted(some, key=lambda row: row["alpha"]), factor) for part, some in found.items()]


def _line(part: str, rows: Sequence[Record], factor: float) -> Line:
    def column(name: str) -> tuple[float, ...]:
        known = (row[name] if row["status"] == "ok" else None for row in rows)
        return tuple(math.nan if value is None else factor * value for value in known)

    return Line(part, tuple(row["alpha"] for row in rows), column("value"), column("low"), column("high"))


def _valleys(table: Table, metric: str, split: str) -> dict[str, dict[tuple[float, float], float]]:
    """Of each Part, (alpha, signed sigma) -> mean over draws."""
    found: dict[str, dict[tuple[float, float], float]] = {}
    for row in records(table.where(metric=metric, split=split)):
        if row["perturbation"] == "none" or row.get("draw") is not None or row["status"] != "ok":
            continue
        y = (row["sigma"] or 0.0) * (row["side"] or 1)
        found.setdefault(row["part"], {})[row["alpha"], y] = row["value"]
    return found


def _looks(lines: Sequence[Line], about: About) -> dict[str, tuple[str, int]]:
    """Part -> colour and number of its line, of those that are coloured: worst, best, all at once."""
    alone = sorted((line for line in lines if line.name != WHOLE), key=lambda line: _start(line, about), reverse=True)
    worst = alone[: math.ceil(len(alone) / 2)][:ENDS]
    best = alone[len(worst) :][::-1][:ENDS]
    looks = {line.name: (HIGH, i) for i, line in enumerate(worst)} | {
        line.name: (LOW, i) for i, line in enumerate(best)
    }
    return looks | ({WHOLE: (ALL, 0)} if any(line.name == WHOLE for line in lines) else {})


def _start(line: Line, about: About) -> float:
    """How bad the first number is; one that is missing is the worst."""
    value = line.values[0]
    return math.inf if math.isnan(value) else -value if about.higher else value


def _curves(
    axes: "Axes", table: Table, metric: str, split: str, sigma: float | None, looks: Mapping[str, tuple[str, int]]
) -> None:
    lines = lines_of(table, metric, split, sigma)
    _, unit = _unit(table, metric)
    scale = _scale(metric, unit, [value for line in lines for value in line.values if math.isfinite(value)])
    for line in sorted(lines, key=lambda line: line.name in looks):
        colour, at = looks.get(line.name, (OTHERS, 0))
        wide = 2.0 if line.name == WHOLE else 1.5 if line.name in looks else 0.8
        marker = {"marker": scales.MARKERS[at], "markersize": 3.5} if line.name in looks and line.name != WHOLE else {}
        axes.plot(line.alphas, line.values, color=colour, linestyle=STYLES[at], linewidth=wide, **marker)
        if line.name in looks and at == 0 and any(math.isfinite(value) for value in line.low):
            axes.fill_between(line.alphas, line.low, line.high, color=colour, alpha=0.13, linewidth=0)
    upright(axes, scale, metric, unit)
    shown = [line for line in lines if line.name in looks]
    axes.set_xlim(-0.13 - 0.025 * max((len(_label(shown, line)) for line in shown), default=0), 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.axvline(0, color="#e3e3e3", linewidth=0.8, zorder=0)
    axes.grid(axis="y", color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)
    _names(axes, shown, scale.with_margin(1.05), looks)


def _names(axes: "Axes", lines: Sequence[Line], scale: scales.Scale, looks: Mapping[str, tuple[str, int]]) -> None:
    """The coloured lines' names left of their beginnings, moved apart."""
    known = [(scale.up(line.values[0]), line) for line in lines if math.isfinite(line.values[0])]
    known.sort(key=lambda pair: pair[0])
    for place, (at, line) in zip(apart([at for at, _ in known], 0.075), known, strict=True):
        begin = line.alphas[0]
        transform, colour = axes.get_xaxis_transform(), looks[line.name][0]
        axes.plot([-0.07, begin - 0.02], [place, at], transform=transform, color=colour, linewidth=0.6)
        look = {"color": colour, "fontsize": 7.5, "ha": "right", "va": "center", "parse_math": False}
        axes.text(-0.08, place, _label(lines, line), transform=transform, **look)


def _label(lines: Sequence[Line], line: Line) -> str:
    """A Part's name, told apart from the others'."""
    return "all at once" if line.name == WHOLE else words.labels([each.name for each in lines], 20, 28)[line.name]


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Places in order, moved so that each is at least `gap` above the one before, and within 0 and 1 if there is room."""
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + gap) if found else max(place, 0.02))
    over = found[-1] - 0.99 if found else 0.0
    if over > 0:
        for i in range(len(found) - 1, -1, -1):
            most = 0.99 if i == len(found) - 1 else found[i + 1] - gap
            found[i] = min(found[i], most)
    return found


def _path_title(table: Table, about: About, sigma: float | None, looks: Mapping[str, tuple[str, int]]) -> str:
    data = words.data_name(table.provenance)
    alone = {row for row in table.parts() if row != WHOLE}
    grey = len(alone - looks.keys())
    noise = (
        "" if sigma is None else f", with normal noise of standard deviation {sigma:g}, mean of {_draws(table)} draws"
    )
    kind = "over draws" if sigma is not None else "over samples"
    level = float(table.provenance["simultaneous"]["level"])
    said = [
        f"One {about.part} (or all at once) on the straight way from {about.origin} to trained{noise}"
        f"{f', {data}' if data else ''}; {_counts(table)}.",
        f"Orange: the {about.part}s that are worst at the start without noise; blue: the best"
        + (f"; grey: the other {grey}" if grey else "")
        + f". Bands (the worst, the best, all at once): {100 * level:g} % intervals {kind}.",
    ]
    return "\n".join(said)


def _counts(table: Table) -> str:
    """What the numbers rest on, of each split where they differ."""
    found = {split: _rests_on(table, split) for split in _splits(table)}
    if len(set(found.values())) == 1:
        return f"n = {next(iter(found.values()))}"
    return f"n = {words.listed([f'{n} on {split} data' for split, n in found.items()])}"


def _rests_on(table: Table, split: str) -> str:
    """The n of the unmodified network on a split; from the least to the most, where metrics count different things."""
    n = {row["n"] for row in records(table.where(perturbation="none", split=split)) if row["n"]}
    return " to ".join(words.count(end) for end in dict.fromkeys((min(n), max(n)))) if n else "-"


def _valley_title(table: Table, about: About, metric: str, split: str, parts: int) -> str:
    data = words.data_name(table.provenance)
    said = f"{names.title(metric)} on {f'{data} ' if data else ''}{split} data around the way of one {about.part}: mean of "
    said += f"{words.plural(_draws(table), 'draw')} of normal noise on each side (the sign of its inner product with the start)."
    said += f" Line: mean error {100 * LIMIT:g} %." if metric == "error" else ""
    said += f" The first {PANELS} of {parts}." if parts > PANELS else ""
    return said


def _heat(
    axes: "Axes",
    found: "object",
    alphas: Sequence[float],
    signed: Sequence[float],
    scale: scales.Scale,
    metric: str,
    factor: float,
) -> None:
    """One valley: rows are signed standard deviations, in order."""
    import numpy as np

    values, rows = np.asarray(found, dtype=float), np.arange(len(signed))
    norm, cmap = _norm(scale, metric)
    axes.patch.set(facecolor="#e6e6e6", edgecolor="#8a8a8a", hatch="////")
    there = np.isfinite(values)
    clipped = np.ma.array(np.clip(np.where(there, values, scale.low), scale.low, scale.high), mask=~there)
    axes.pcolormesh(_edges(alphas), np.arange(len(signed) + 1) - 0.5, clipped, norm=norm, cmap=cmap, rasterized=True)
    limit = factor * LIMIT
    if (
        metric == "error"
        and there.any()
        and min(values.shape) > 1
        and values[there].min() < limit < values[there].max()
    ):
        axes.contour(alphas, rows, np.ma.masked_invalid(values), levels=[limit], colors=["#c2185b"], linewidths=1.5)
    chosen = [i for i in scales.tick_indices(len(signed), 9) if i != len(signed) // 2]
    ticks = sorted({*chosen, len(signed) // 2})
    axes.set_yticks(ticks, [f"{signed[i]:.2g}".replace("-", "−") if signed[i] else "0" for i in ticks], fontsize=7.5)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=2.5, color="#555555")


def _edges(places: Sequence[float]) -> list[float]:
    """Where the cells of places end: half-way to their neighbours."""
    middles = [(a + b) / 2 for a, b in pairwise(places)]
    first = 2 * places[0] - middles[0] if middles else places[0] - 0.05
    last = 2 * places[-1] - middles[-1] if middles else places[-1] + 0.05
    return [first, *middles, last]


def _norm(scale: scales.Scale, metric: str) -> tuple:
    import numpy as np
    from matplotlib.colors import FuncNorm

    up, down = (np.vectorize(convert, otypes=[float]) for convert in (scale.up, scale.value))
    stops = scales.stops(metric)
    return FuncNorm((up, down), scale.low, scale.high), house.colormap(stops[::-1] if scale.flipped else stops)


def _bar(figure: "Figure", panels: object, scale: scales.Scale, metric: str, unit: str) -> None:
    from matplotlib.cm import ScalarMappable

    norm, cmap = _norm(scale, metric)
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=panels, pad=0.015, fraction=0.045, aspect=22)  # pyright: ignore[reportArgumentType]
    told = [f"{scale.words} scale"] if scale.words else []
    told += [f"darkest: {words.number(scale.high, unit)} or more"] if scale.clipped else []
    name = unit if unit.startswith("%") else f"{names.title(metric)}{f' ({unit})' if unit else ''}"
    bar.set_label(f"{name}\n({'; '.join(told)})" if told else name, parse_math=False)
    ticks = scale.ticks(end=True)
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _scale(metric: str, unit: str, values: Sequence[float]) -> scales.Scale:
    return scales.of_shares(values) if unit.startswith("%") else scales.of_amounts(values)


def _metrics(table: Table) -> list[str]:
    """The metrics themselves, in the order asked."""
    asked = [str(row["metric"]) for row in records(table.where(perturbation="none"))]
    return [metric for metric in dict.fromkeys(asked) if not metric.endswith(names.DELTA)]


def _splits(table: Table) -> list[str]:
    """Training data first."""
    return sorted(set(table.frame["split"]), key=lambda split: (split != "train", split))


def _split(table: Table, wanted: str = "train") -> str:
    there = _splits(table)
    return wanted if wanted in there else there[0]


def _sigmas(table: Table) -> list[float]:
    return sorted(set(table.frame["sigma"].dropna())) if "sigma" in table.frame else []


def _draws(table: Table) -> int:
    return len(set(table.frame["draw"].dropna())) if "draw" in table.frame else 0


def _raw_unit(table: Table, metric: str) -> str:
    return str(table.where(metric=metric, perturbation="none")["unit"].iloc[0])


def _unit(table: Table, metric: str) -> tuple[float, str]:
    return shown_unit(metric, _raw_unit(table, metric))


def _still(row: Record) -> bool:
    return row["perturbation"] == "interpolate"


def _called(part: str) -> str:
    return "all at once" if part == WHOLE else part


def _curve(row: Record) -> str:
    noise = "" if _still(row) else f" with noise of {row['sigma']:g}"
    return f"{_called(row['part'])}{noise} on {row['split']} data"


def _place(alpha: float, about: About) -> str:
    return f"{about.start} (0)" if alpha == 0 else "trained (1)" if alpha == 1 else f"{alpha:g}"


def _in(unit: str) -> str:
    """The unit of a column, after what it is of."""
    return " in %" if unit.startswith("%") else f" in {unit}" if unit else ""


def _few(numbers: Sequence[float]) -> str:
    return f"{numbers[0]:g}" if len(numbers) == 1 else f"{numbers[0]:g} to {numbers[-1]:g}"
