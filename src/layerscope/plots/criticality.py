"""How critical each module is, in words, tables and pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerscope.partition import WHOLE
from layerscope.plots import house, scales, words
from layerscope.plots.about import About
from layerscope.plots.grid import Record, records
from layerscope.plots.weights import Listing
from layerscope.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

USUAL = 0.1
"""The eps that pictures of one eps are of, or that next to it: chatterji2020's."""
FEW = 16
"""Draws below which a cell's error is only about right."""
LINES = 8
"""Modules that have a line of their own."""
STATUS = {
    "ok": "the best cell lies inside the grid",
    "on the edge": "the best cell lies at an end of the grid",
    "zero": "can be put back to the start, or never moved",
    "infeasible": "no cell of the grid has so little error",
    "failed": "the network raised an error",
    "not applicable": "no start, or no real parameters",
}
"""Status -> what it means."""
READING = {
    "criticality": "Each mark is one module: the farther right, the less of the way back to its start it can go, or "
    "the less noise it bears, before more samples than eps are wrong. The scale is logarithmic: a line "
    "on is ten times as critical. Modules at the left edge can be put back whole.",
    "eps": "From left to right more error is allowed, so that curves fall. A module whose curve stays high is "
    "critical however much may be lost.",
    "errors": "Each cell is one place on the way (from left, start, to right, trained) with one strength of noise "
    "(more noise upwards), and its number the error to expect there. Light cells are what the module "
    "bears. Of the cells that are at most eps, the framed one has the smallest criticality.",
}
"""Figure -> how to read it."""
MEANING = "criticality, α² D² / σ² (logarithmic scale)"


@dataclass(frozen=True)
class Answers:
    """What was found at one eps: a row a module, in order, and that of the network."""

    eps: float
    modules: tuple[Record, ...]
    network: Record

    @property
    def measured(self) -> list[Record]:
        """Modules with a criticality, the most critical first."""
        return sorted((row for row in self.modules if _value(row) is not None), key=lambda row: -row["value"])


def answers(table: Table) -> list[Answers]:
    """What was found, from the smallest eps to the largest."""
    rows = records(table.where(metric="criticality"))
    found = []
    for eps in sorted({row["eps"] for row in rows}):
        mine = [row for row in rows if row["eps"] == eps]
        (network,) = (row for row in mine if row["part"] == WHOLE)
        found.append(Answers(eps, tuple(row for row in mine if row["part"] != WHOLE), network))
    return found


def usual(table: Table) -> Answers:
    """Those at the eps next to `USUAL`."""
    return min(answers(table), key=lambda each: abs(math.log(each.eps / USUAL)))


def sentences(table: Table) -> list[str]:
    """What was found: the network, the modules that matter most and least, what is not sure, and what is assumed."""
    part, every = About.of(table).part, answers(table)
    said = [_asked(table, every)]
    for each in every:
        said += _found(each, part, len(every) > 1)
    said += _unsure(every, part)
    return said + _assumed(table)


def _asked(table: Table, every: Sequence[Answers]) -> str:
    facts = table.provenance
    data, own = words.data_name(facts), facts.get("error")
    text = (
        f"A {About.of(table).part} is critical if it can neither go back toward its start nor bear noise. Its criticality is "
        "the least α² D² / σ²: D is how far training moved it, α the share of that way that it keeps (0 is the start, 1 the "
        "trained values) and σ the standard deviation of normal noise on its parameters, such that the expected error on the "
        f"{f'{data} ' if data else ''}training data is at most eps = {words.listed([f'{each.eps:g}' for each in every])}."
    )
    return text if own is None else f"{text} The trained network itself has an error of {_percent(own)}."


def _found(each: Answers, part: str, several: bool) -> list[str]:
    at = f"At eps = {each.eps:g}, " if several else ""
    said, measured = [], each.measured
    if not measured:
        return [_begin(f"{at}no {part} has a criticality: {_reason(each.modules[0])}.")]
    top, total = measured[0], _value(each.network)
    zero = [row["part"] for row in measured if row["value"] == 0]
    if top["value"] == 0:
        said.append(
            _begin(f"{at}every {part} that has a criticality has zero: each alone can be put back to its start.")
        )
    elif total is not None:
        share = top["value"] / total
        more = f", {100 * share:.0f} % of it {top['part']}" if len(measured) > 1 else ""
        said.append(
            _begin(f"{at}the network's criticality, the sum over {len(measured)}, is {words.number(total, '')}{more}.")
        )
    if top["value"] > 0:
        said.append(f"The most critical {part} is {top['part']}: {_best(top)}.")
    if zero and top["value"] > 0:
        doubtful = [row["part"] for row in measured if row["value"] == 0 and row["certificate"] > each.eps]
        estimated = "" if not doubtful else f" (by estimate: {'all' if doubtful == zero else words.listed(doubtful)})"
        said.append(f"Zero have {words.listed(zero)}: put back to the start, the error stays at most eps{estimated}.")
    edge = [row["part"] for row in measured if row["status"] == "on the edge"]
    if edge:
        said.append(
            f"{words.listed(edge)}: the best cell lies at an edge of α and σ. At α = 1 nothing is gained by going back toward "
            "the start; at an end of the grid of σ the value depends on where the grid ends."
        )
    for status, rows in _without(each).items():
        said.append(
            f"Without a criticality ({status}): {words.listed([row['part'] for row in rows])}; {_reason(rows[0])}."
        )
    return said


def _best(row: Record) -> str:
    place = "at its trained values" if row["alpha"] == 1 else f"having kept {100 * row['alpha']:.0f} % of its way"
    between = f" ({found})" if (found := _between(row)) else ""
    return (
        f"{words.number(row['value'], '')}{between}; {place} it bears noise of σ = {row['sigma']:.3g}, with an error of "
        f"{_percent(row['error'])} in the mean over {words.plural(row['n'], 'draw')} (at {100 * row['level']:g} % confidence at "
        f"most {_percent(row['certificate'])})"
    )


def _unsure(every: Sequence[Answers], part: str) -> list[str]:
    """Answers whose expected error may be above eps after all."""
    rows = [row for each in every for row in each.measured]
    doubtful = [row for row in rows if row["certificate"] > row["eps"]]
    if not doubtful:
        return (
            ["Of each best cell it is sure that its expected error is at most eps; the level holds for each alone."]
            if rows
            else []
        )
    return [
        f"In {len(doubtful)} of {words.plural(len(rows), 'answer')} the best cell is so near eps that its draws do not make sure "
        f"on which side it is; its estimate decided, and another seed may find another cell. The table has, for each {part}, "
        "between which two criticalities draws leave the choice, and how large its expected error may be (at most); more "
        "draws (--most) narrow both."
    ]


def _between(row: Record) -> str:
    """The interval of a criticality, where draws leave a choice."""
    low, high = row.get("low"), _high(row)
    if low is None or (low == row["value"] == high):
        return ""
    if high is None:
        return f"from {words.number(low, '')} on"
    return f"{words.number(low, '')} to {words.number(high, '')}"


def _assumed(table: Table) -> list[str]:
    """Whether errors grow with sigma, as far as was looked."""
    checked = table.provenance.get("monotonicity") or {}
    pairs, falls = checked.get("pairs", 0), checked.get("falls", [])
    searched = table.provenance["spec"]["search"] == "sequential"
    if not pairs:
        return []
    assumed = "The search takes it that the error grows with σ: " if searched else "Does the error grow with σ? "
    if not falls:
        able = checked.get("able", 0)
        return [
            f"{assumed}{'o' if searched else 'O'}f {pairs:,} pairs of cells that were compared none contradicts it at the 95 % "
            f"level of a single pair; {able:,} of them had draws enough to show a fall of {100 * checked.get('fall', 0):g} "
            "points."
        ]
    names = words.listed(list(dict.fromkeys(fall["part"] for fall in falls)))
    return [
        f"{assumed}{'o' if searched else 'O'}f {pairs:,} pairs of cells {len(falls):,} contradict it, each at its own "
        f"95 % level ({names})."
    ]


def listings(table: Table) -> list[Listing]:
    """Each module's best cell, at each eps."""
    return [_listing(each, About.of(table).part) for each in answers(table)]


def _listing(each: Answers, part: str) -> Listing:
    heads = [part, "criticality", "between", "α", "σ", "D", "error", "at most", "draws", "status"]
    rows = [_line(row) for row in (*each.modules, each.network)]
    there = {row["status"] for row in (*each.modules, each.network)}
    told = "; ".join(f"{status!r} means: {text}" for status, text in STATUS.items() if status in there)
    caption = (
        f"Criticality α² D² / σ² of each {part} at eps = {each.eps:g}: the best place α on the way from the start (0) to the "
        "trained values (1) and standard deviation σ of noise; D, the 2-norm of how far training moved it; the expected error "
        "there, and its upper confidence bound, over so many draws of the noise. Between: what draws "
        "leave open of the criticality."
    )
    return Listing(f"{caption} Status {told}.", heads, rows)


def _line(row: Record) -> list[str]:
    value = _value(row)
    if row["part"] == WHOLE:
        return [WHOLE, "-" if value is None else words.number(value, ""), *["-"] * 7, row["status"]]
    distance = "-" if row.get("distance") is None else words.number(row["distance"], "")
    if value is None:
        return [row["part"], "-", "-", "-", "-", distance, "-", "-", "-", row["status"]]
    return [
        row["part"],
        words.number(value, ""),
        _between(row) or "-",
        f"{row['alpha']:g}",
        f"{row['sigma']:.3g}",
        distance,
        _percent(row["error"]),
        _percent(row["certificate"]),
        words.count(row["n"]),
        row["status"],
    ]


def figures(table: Table) -> "dict[str, Figure]":
    """`criticality`: each module's; `eps`: against eps, if there are several; `errors`: what was looked at of the least and the
    most critical module."""
    found = {"criticality": _modules(table)}
    if len(answers(table)) > 1:
        found["eps"] = _against(table)
    if (errors := _errors(table)) is not None:
        found["errors"] = errors
    return found


def _modules(table: Table) -> "Figure":
    """A dot a module on a logarithmic axis; what has no place there stands at its ends."""
    each, part = usual(table), About.of(table).part
    rows, total = each.modules, _value(each.network)
    spans = [end for row in each.measured for end in _open(row) or ()]
    low, high = _ends([*(row["value"] for row in each.measured), *spans])
    with house.style():
        figure = house.figure(6.6, min(40.0, 1.9 + max(0.15, 0.3 - 0.003 * len(rows)) * len(rows)))
        axes = figure.add_subplot()
        for y, row in enumerate(rows):
            place = _place(row, low, high)
            axes.plot([low, place], [y, y], color="#d0d0d0", linewidth=0.8, zorder=1)
            if (ends := _open(row)) is not None:
                axes.plot([max(end, low) for end in ends], [y, y], **_OPEN, zorder=2)
            axes.plot(place, y, **_LOOK.get(row["status"], _LOOK["failed"]), clip_on=False, zorder=3)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        names = list(words.labels([row["part"] for row in rows]).values())
        axes.set_yticks(range(len(rows)), names, fontsize=9 if len(rows) <= 30 else 6.5, parse_math=False)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0, pad=8)
        axes.grid(axis="x", color="#e3e3e3", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel(f"{MEANING} at eps = {each.eps:g}")
        title = [f"How critical each {part} is on {_on(table)}{_rests(each)}"]
        endless = sum(row.get("low") is not None and _high(row) is None for row in each.measured)
        lacking = f"; {endless} of {len(each.measured)} have no upper end" if endless else ""
        title += [f"Blue lines: what draws leave open{lacking}"] if spans or endless else []
        title += [] if total is None else [f"Network (their sum): {words.number(total, '')}"]
        house.headline(figure, "\n".join(title))
        _legend(axes, list(dict.fromkeys(row["status"] for row in rows)))
    return figure


_OPEN: dict[str, Any] = {"color": "#0072b2", "linewidth": 2.2, "alpha": 0.45, "solid_capstyle": "butt"}
_LOOK: dict[str, dict[str, Any]] = {
    "ok": {"marker": "o", "color": "#0072b2", "markersize": 6, "linestyle": "none"},
    "on the edge": {
        "marker": "D",
        "color": "#b34a00",
        "markerfacecolor": "white",
        "markersize": 6,
        "linestyle": "none",
    },
    "zero": {"marker": "<", "color": "#007a5a", "markersize": 7, "linestyle": "none"},
    "infeasible": {"marker": ">", "color": "#444444", "markersize": 7, "linestyle": "none"},
    "failed": {"marker": "x", "color": "#444444", "markersize": 6, "linestyle": "none"},
    "not applicable": {"marker": "x", "color": "#888888", "markersize": 6, "linestyle": "none"},
}


def _legend(axes: "Axes", there: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], **_LOOK[status]) for status in STATUS if status in there]
    said = [f"{status}: {text}" for status, text in STATUS.items() if status in there]
    axes.figure.legend(marks, said, loc="outside lower left", fontsize=8)


def _against(table: Table) -> "Figure":
    """The network's sum and its modules against eps; zeros lie on the bottom line."""
    every = answers(table)
    ranked = _ranked(every)
    named = ranked[:LINES]
    low, high = _ends(
        [v for each in every for v in [_value(each.network), *map(_value, each.modules)] if v is not None]
    )
    with house.style():
        figure = house.figure(8.6, 3.6)
        left, right = figure.subplots(1, 2, sharey=True, sharex=True)
        _curve(left, [(each.eps, _value(each.network)) for each in every], low, color="#222222", marker="o")
        for at, name in reversed(list(enumerate(ranked))):
            points = [(each.eps, _value(row)) for each in every for row in each.modules if row["part"] == name]
            if name in named:
                dash = [float(v) / 1.6 for v in scales.DASHES[at % len(scales.DASHES)].split()]
                look = {
                    "color": "#" + scales.LINES[at % len(scales.LINES)],
                    "marker": scales.MARKERS[at % len(scales.MARKERS)],
                }
                _curve(right, points, low, label=name, linestyle=(0, dash) if dash else "-", zorder=3, **look)
            else:
                _curve(right, points, low, color="#c4c4c4", marker=".", zorder=1)
        for axes, title in ((left, "Network (sum)"), (right, f"Each {About.of(table).part}")):
            axes.set_yscale("log")
            axes.set_ylim(low, high)
            axes.set_xlim(*_widened([each.eps for each in every]))
            axes.set_xlabel("eps, the expected error that is allowed")
            axes.set_title(title, loc="left")
            axes.grid(axis="y", color="#e3e3e3", linewidth=0.6)
            axes.set_axisbelow(True)
        left.set_ylabel("criticality, α² D² / σ²\n(logarithmic scale)")
        _names(right, named, len(ranked) - len(named), every[0].eps)
        zeros = any(_value(row) == 0 for each in every for row in (*each.modules, each.network))
        gaps = any(_value(row) is None for each in every for row in each.modules)
        note = f"Criticality on {_on(table)}." + (" Points on the bottom line are zero." if zeros else "")
        note += " Missing points: no cell of the grid has so little error." if gaps else ""
        house.headline(figure, note, weight="normal")
    return figure


def _ranked(every: Sequence[Answers]) -> list[str]:
    """Modules from the most critical at the smallest eps on; of equal ones, by the next eps. Where there is no value it would be
    beyond all others; modules that have none at all come last."""
    values = {row["part"]: list[float]() for row in every[0].modules}
    for each in every:
        for row in each.modules:
            values[row["part"]].append(math.inf if (value := _value(row)) is None else value)
    return sorted(values, key=lambda part: (min(values[part]) == math.inf, [-value for value in values[part]]))


def _curve(axes: "Axes", points: Sequence[tuple[float, float | None]], low: float, **look: Any) -> None:
    heights = [math.nan if value is None else max(value, low) for _, value in points]
    axes.plot([eps for eps, _ in points], heights, linewidth=1.4, markersize=4, clip_on=False, **look)


def _names(axes: "Axes", named: Sequence[str], others: int, eps: float) -> None:
    lines = {str(line.get_label()): line for line in axes.lines}
    legend = axes.legend(
        [lines[name] for name in named], ["-"] * len(named), fontsize=8, handlelength=3.2, loc="upper left"
    )
    legend.set_bbox_to_anchor((1.01, 1.0))
    for text, name in zip(legend.get_texts(), words.labels(named).values(), strict=True):
        text.set_parse_math(False)
        text.set_text(name)
    if others:
        legend.set_title(f"grey: {others} less critical at eps = {eps:g}")


def _errors(table: Table) -> "Figure | None":
    """Expected errors over alpha and sigma of two modules; None if there is no area to show."""
    each, cells = usual(table), records(table.where(metric="expected_error"))
    measured = each.measured
    chosen = list({row["part"]: row for row in (*measured[-1:], *measured[:1])}.values())
    spec = table.provenance["spec"]
    alphas, sigmas = list(spec["alphas"]), list(spec["sigmas"])
    if not chosen or not cells or len(alphas) < 2 or len(sigmas) < 2:
        return None
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    with house.style():
        figure = house.figure(1.4 + 3.7 * len(chosen), 4.3)
        places = figure.subplots(1, len(chosen), squeeze=False, sharey=True)[0]
        for axes, row in zip(places, chosen, strict=True):
            mine = {(cell["alpha"], cell["sigma"]): cell for cell in cells if cell["part"] == row["part"]}
            _map(axes, mine, alphas, sigmas, row)
        places[0].set_ylabel("σ, standard deviation of the noise")
        colours = ScalarMappable(Normalize(0, 100), house.colormap(scales.ERROR))
        bar = figure.colorbar(colours, ax=list(places), pad=0.015, aspect=22)
        bar.set_label("expected error / %")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        caption = (
            f"Expected error under noise on {_on(table)}; numbers in per cent. Hatched: not looked at. Framed: the best cell at "
            f"eps = {each.eps:g}. In grey: fewer than {FEW} draws, as where a cell is far from eps; else up to "
            f"{words.plural(max(cell['n'] for cell in cells), 'draw')}."
        )
        house.headline(figure, caption, 8.5, "normal")
    return figure


def _map(
    axes: "Axes",
    cells: dict[tuple[float, float], Record],
    alphas: Sequence[float],
    sigmas: Sequence[float],
    row: Record,
) -> None:
    """The squares of one module."""
    import numpy as np
    from matplotlib.patches import Rectangle

    grid = [[cells.get((alpha, sigma)) for alpha in alphas] for sigma in sigmas]
    values = np.array([[math.nan if cell is None else 100 * cell["value"] for cell in line] for line in grid])
    cmap = house.colormap(scales.ERROR)
    axes.set_facecolor("#f2f2f2")
    empty = Rectangle(
        (-0.5, -0.5), len(alphas), len(sigmas), facecolor="none", hatch="////", edgecolor="#c4c4c4", linewidth=0
    )
    axes.add_patch(empty).set_zorder(0)
    axes.imshow(np.ma.masked_invalid(values), cmap=cmap, vmin=0, vmax=100, origin="lower", aspect="auto", zorder=1)
    for (y, x), value in np.ndenumerate(values):
        if math.isfinite(value):
            cell = grid[y][x]
            few = cell is not None and cell["n"] < FEW
            ink = "#7a7a7a" if few and value < 50 else scales.ink(scales.colour(value / 100, scales.ERROR))
            digits = 1 if value < 20 and not few else 0
            axes.text(x, y, f"{value:.{digits}f}", ha="center", va="center", fontsize=6, color=ink)
    at = alphas.index(row["alpha"]) - 0.5, sigmas.index(row["sigma"]) - 0.5
    axes.add_patch(Rectangle(at, 1, 1, fill=False, edgecolor="#b34a00", linewidth=2, zorder=4, clip_on=False))
    axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas], fontsize=8)
    axes.set_yticks(range(len(sigmas)), [f"{sigma:.2g}" for sigma in sigmas], fontsize=8)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("α: 0 start, 1 trained")
    (name,) = words.labels([row["part"]]).values()
    axes.set_title(f"{name}\ncriticality {words.number(row['value'], '')}", loc="left", fontsize=9, parse_math=False)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Of a logarithmic axis: whole powers of ten around all positive values."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive)) - 0.3), math.ceil(math.log10(max(positive)) + 0.1)
    return 10.0**low, 10.0 ** max(high, low + 2)


def _widened(places: Sequence[float]) -> tuple[float, float]:
    """The ends of a linear axis with room for marks."""
    room = 0.04 * (places[-1] - places[0])
    return places[0] - room, places[-1] + room


def _place(row: Record, low: float, high: float) -> float:
    value = _value(row)
    if value is None:
        return high if row["status"] == "infeasible" else low
    return max(value, low)


def _open(row: Record) -> tuple[float, float] | None:
    """The interval of a criticality, where draws leave a choice; up to the value, where they give no upper end."""
    value, low = _value(row), row.get("low")
    high = value if (end := _high(row)) is None else end
    return None if value is None or low is None or high is None or low == high else (low, high)


def _high(row: Record) -> float | None:
    """The upper end of a criticality, if draws give one."""
    high = row.get("high")
    return high if high is not None and math.isfinite(high) else None


def _value(row: Record) -> float | None:
    """A criticality; None where there is none."""
    value = row.get("value")
    return None if value is None or not math.isfinite(value) else value


def _without(each: Answers) -> dict[str, list[Record]]:
    """Status -> modules without a value."""
    found: dict[str, list[Record]] = {}
    for row in each.modules:
        if _value(row) is None:
            found.setdefault(row["status"], []).append(row)
    return found


def _on(table: Table) -> str:
    data = words.data_name(table.provenance)
    return f"{data} training data" if data else "the training data"


def _rests(each: Answers) -> str:
    draws = sorted(row["n"] for row in each.measured)
    if not draws:
        return ""
    n = words.count(draws[0]) if draws[0] == draws[-1] else f"{words.count(draws[0])} to {words.count(draws[-1])}"
    return f", {n} draws a best cell"


def _percent(share: float) -> str:
    return f"{words.number(100 * share, '%')} %"


def _reason(row: Record) -> str:
    return str(row.get("reason") or "").rstrip(".")


def _begin(text: str) -> str:
    return text[:1].upper() + text[1:]
