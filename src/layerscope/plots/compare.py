"""The contest of measures: which ranks networks as their generalisation error does, in words, tables and pictures."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerscope import ranking
from layerscope.measures.catalogue import LABELS
from layerscope.plots import house, names, scales, words
from layerscope.plots.about import warnings
from layerscope.plots.grid import Record, records
from layerscope.plots.means import SEED
from layerscope.plots.weights import Listing
from layerscope.ranking import BEST, ENOUGH
from layerscope.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AGREE = ("b2182b", "d6604d", "f4a582", "fddbc7", "f7f7f7", "d1e5f0", "92c5de", "4393c3", "2166ac")
"""Colours of tau from -1 to 1: ColorBrewer's RdBu, told apart without colour vision."""
ACROSS = 4
"""Panels side by side."""
NARROW = 9
"""Networks or measures up to which all values are listed."""
SPREAD = 8.0
"""Positive values whose largest is this times their smallest, or more, are spread by their logarithm."""
SAME = "Kendall's tau is 1 for the same order, 0 for orders that have nothing in common, and -1 for the reverse."
TURNED = "(turned): a smaller value should mean a larger one of the target, so that its order was reversed."
EQUAL = 1e-9
"""Taus that are this near to each other are the same but for rounding."""


@dataclass(frozen=True)
class Result:
    """What a table of `compare` says."""

    table: Table

    @cached_property
    def taus(self) -> list[Record]:
        """Of each measure that ranks the networks, the best first."""
        rows = [row for row in records(self.table.where(metric="tau")) if row["value"] is not None]
        return sorted(rows, key=lambda row: -row["value"])

    @cached_property
    def without(self) -> dict[str, str]:
        """Measures that do not, and why."""
        rows = records(self.table.where(metric="tau"))
        return {row["measure"]: row["reason"] for row in rows if row["value"] is None}

    @cached_property
    def lead(self) -> Record | None:
        """The lead of a measure over the best other."""
        rows = records(self.table.where(metric="tau_difference"))
        return next((row for row in rows if row["measure_b"] == BEST), None)

    @property
    def first(self) -> str:
        """The measure that the others are compared with: that which ranks best, if none was named."""
        return self.lead["measure"] if self.lead else self.taus[0]["measure"] if self.taus else ""

    def difference(self, other: str) -> Record | None:
        """By how much `first` ranks better than another measure."""
        for row in records(self.table.where(metric="tau_difference")):
            if (row["measure"], row["measure_b"]) == (self.first, other):
                return row
            if (row["measure"], row["measure_b"]) == (other, self.first):
                ends = {"value": row["value"], "low": row["high"], "high": row["low"]}
                return {**row, **{name: None if end is None else -end for name, end in ends.items()}}
        return None

    @cached_property
    def values(self) -> dict[str, dict[str, Record]]:
        """The rows of the networks: metric -> run -> row."""
        found: dict[str, dict[str, Record]] = {}
        for row in records(self.table.frame):
            if row["run"]:
                found.setdefault(row["metric"], {})[row["run"]] = row
        return found

    @property
    def target(self) -> str:
        return self.table.provenance["spec"]["target"]

    @property
    def networks(self) -> int:
        return self.table.provenance["networks"]

    @cached_property
    def hyper(self) -> Mapping[str, Mapping[str, Any]]:
        return self.table.provenance["hyper"]

    @property
    def varying(self) -> list[str]:
        """What the networks differ in."""
        return list(next(iter(self.hyper.values()), {}))

    @property
    def rivals(self) -> list[str]:
        """The best of the other measures, over whom the lead is: several where they tie."""
        behind = {row["measure"]: self.difference(row["measure"]) for row in self.taus if row["measure"] != self.first}
        known = {name: row["value"] for name, row in behind.items() if row and row["value"] is not None}
        return [name for name, value in known.items() if value <= min(known.values()) + EQUAL]

    def turned(self, measure: str) -> bool:
        """Whether a smaller value should mean a larger one of the target."""
        return self.table.provenance["direction"].get(measure, 1) < 0

    def label(self, measure: str) -> str:
        """What a measure is called."""
        return LABELS.get(measure, names.noun(measure)) + (" (turned)" if self.turned(measure) else "")

    def given(self, measure: str, name: str) -> Record | None:
        """How well a measure ranks networks that differ in this hyperparameter only."""
        found = records(self.table.where(metric="tau_given", measure=measure, given=name)) if self.varying else []
        return found[0] if found else None

    def grouped(self, measure: str, name: str) -> int:
        """How many networks are in groups that differ in this hyperparameter only, and that a measure and the target order."""
        import numpy as np

        alike: dict[str, list[str]] = {}
        for run, row in self.values[measure].items():
            if row["value"] is not None:
                alike.setdefault(str({**self.hyper[run], name: None}), []).append(run)
        count = 0
        for runs in alike.values():
            x, y = (np.array([self.values[metric][run]["value"] for run in runs]) for metric in (measure, self.target))
            ranked = ranking.groups(x, y, [str(self.hyper[run][name]) for run in runs], [""] * len(runs))
            count += len(runs) if ranked else 0
        return count

    def granulated(self, measure: str) -> Record | None:
        """The mean of that over hyperparameters."""
        found = records(self.table.where(metric="tau_granulated", measure=measure))
        return found[0] if found else None


def sentences(table: Table) -> list[str]:
    """Which measure ranks best, whether its lead is decided, and what the answer rests on."""
    result = Result(table)
    count, target = words.plural(result.networks, "network"), names.noun(result.target)
    measures = words.plural(len(result.taus), "measure")
    said = [f"{count} were ranked by {target} and by each of {measures}. {SAME}"]
    if not result.taus:
        return [*said, *_lacking(result)]
    best = {row["measure"]: f"tau = {_estimate(row)}" for row in result.taus if _as_high(row, result.taus[0])}
    tied = f"s by {len(best)} measures are the most like it, a tie: " if len(best) > 1 else " most like it is that by "
    said.append(f"The order{tied}{_named(result, best)}.")
    said += _led(result)
    sure, opposed = (sum(map(test, result.taus)) for test in (_above, _below))
    said.append(
        f"Each taken by itself, {sure} of {measures} surely {'ranks' if sure == 1 else 'rank'} as the {target} does (tau above 0)"
        + (f", and {opposed} surely the other way round (below 0)." if opposed else ".")
    )
    return [*said, *_by_hyper(result), *_lacking(result)]


def _led(result: Result) -> list[str]:
    """What is known of the lead of one measure."""
    lead, name = result.lead, result.label(result.first)
    if lead is None:
        return []
    if lead["value"] is None:
        return [f"Whether {name} ranks better than others cannot be said: {lead['reason']}."]
    second, found = "; ".join(map(result.label, result.rivals)), _estimate(lead)
    if _above(lead):
        return [
            f"{_capital(name)} ranks surely better than every other measure; its lead over the best of them is {found}."
        ]
    if _below(lead):
        return [
            f"{_capital(name)} ranks surely worse than the best other measure ({second}): its lead over it is {found}."
        ]
    few = f" Two measures are seldom told apart by fewer than {ENOUGH} networks." if result.networks < ENOUGH else ""
    return [
        f"It is not decided whether {name} ranks better than every other measure: its lead over the best of them ({second}) is "
        f"{found}{', a tie' if abs(lead['value']) <= EQUAL else ''}.{few}"
    ]


def _by_hyper(result: Result) -> list[str]:
    """What is left among networks that differ in one hyperparameter only."""
    rows = [(row, measure) for row, measure in _granulated(result) if row["value"] is not None]
    if not rows:
        return []
    highest = max((row for row, _ in rows), key=lambda row: row["value"])
    best = {
        measure: f"mean tau {_estimate(row)} over {words.listed(_basis(result, measure), len(result.varying))}"
        for row, measure in rows
        if _as_high(row, highest)
    }
    tied = f"{len(best)} measures rank best, a tie: " if len(best) > 1 else "the best is "
    return [f"Among networks that differ in one hyperparameter only, {tied}{_named(result, best)}."]


def _basis(result: Result, measure: str) -> list[str]:
    """The hyperparameters that have groups of networks which differ in nothing else: how many, of how many networks."""
    given = {name: result.given(measure, name) for name in result.varying if name != SEED}
    return [
        f"{name} ({words.plural(row['groups'], 'group')}, {words.plural(result.grouped(measure, name), 'network')})"
        for name, row in given.items()
        if row and row["value"] is not None
    ]


def _named(result: Result, best: Mapping[str, str]) -> str:
    """Measures, and what is said of them: once, where it is the same of several."""
    alike: dict[str, list[str]] = {}
    for measure, said in best.items():
        alike.setdefault(said, []).append(result.label(measure))
    return "; ".join(f"{'; '.join(labels)}: {said}" for said, labels in alike.items())


def _as_high(row: Record, highest: Record) -> bool:
    return row["value"] >= highest["value"] - EQUAL


def _granulated(result: Result) -> list[tuple[Record, str]]:
    found = ((result.granulated(row["measure"]), row["measure"]) for row in result.taus)
    return [(row, measure) for row, measure in found if row is not None]


def _lacking(result: Result) -> list[str]:
    """What is not in the ranking, and why."""
    said = [f"Not ranked: {result.label(name)} ({reason})." for name, reason in result.without.items()]
    said += [f"{_capital(result.label(row['measure']))}: {row['reason']}." for row in result.taus if row["reason"]]
    left_out = [f"{name} ({reason})" for name, reason in result.table.provenance["left_out"].items()]
    return said + ([f"Left out: {words.listed(left_out)}."] if left_out else [])


def remarks(table: Table) -> list[str]:
    """What there is to know of the values that were ranked, what was not ranked, and warnings."""
    return [*_lacking(Result(table)), *map(_capital, warnings(table))]


def listings(table: Table) -> list[Listing]:
    """Measures by how well they rank; that within each hyperparameter; and the values, if they fit."""
    result = Result(table)
    return [_ranking(result), *filter(None, [_within(result), _values(result)])]


def _ranking(result: Result) -> Listing:
    """A row a measure, the best first."""
    target, level = names.noun(result.target), 100 * result.table.provenance["spec"]["level"]
    rows = []
    for row in result.taus:
        other = row["measure"] != result.first
        difference = result.difference(row["measure"]) if other else None
        lead = [_number(difference), _ends(difference)] if difference else ["-", "-"]
        rows.append([result.label(row["measure"]), _number(row), _ends(row), str(row["n"]), *lead])
    rows += [[result.label(name), "-", "-", "0", "-", "-"] for name in result.without]
    caption = (
        f"How well each measure ranks networks by their {target}. {SAME} Intervals are {level:g} % over networks, each for "
        f"itself (-: too few networks for one). Lead: how much larger the tau of {result.label(result.first)} is, on the "
        f"networks that have both. {TURNED}"
    )
    return Listing(
        caption, ["measure", "tau", "interval", "networks", "lead of the first", "interval of the lead"], rows
    )


def _within(result: Result) -> Listing | None:
    """A row a measure, a column a hyperparameter."""
    if not result.varying or not result.taus:
        return None
    rows = []
    for each in result.taus:
        measure = each["measure"]
        cells = [_grouped(result.given(measure, name)) for name in result.varying]
        rows.append([result.label(measure), *cells, _estimate(result.granulated(measure))])
    caption = (
        "The same among networks that differ in one hyperparameter only: the mean of taus over groups of such networks (how many "
        f"groups; -: none), and its mean over hyperparameters{', without the seed' if SEED in result.varying else ''}."
    )
    return Listing(caption, ["measure", *result.varying, "mean"], rows)


def _values(result: Result) -> Listing | None:
    """All values: of few measures a row a network, of few networks a row a measure."""
    columns = [name for name in (result.target, *result.table.provenance["measures"]) if name in result.values]
    targets = result.values[result.target]
    runs = sorted(targets, key=lambda run: targets[run]["value"])
    caption = "What was measured, by network, from the smallest " + names.noun(result.target) + "."

    def cell(name: str, run: str) -> str:
        row = result.values[name].get(run)
        return "-" if row is None or row["value"] is None else _read(row["value"], row["unit"])

    if len(columns) <= NARROW:
        heads = ["network", *(names.noun(columns[0]), *(LABELS.get(name, names.noun(name)) for name in columns[1:]))]
        return Listing(caption, heads, [[run, *(cell(name, run) for name in columns)] for run in runs])
    if len(runs) <= NARROW:
        rows = [[LABELS.get(name, names.noun(name)), *(cell(name, run) for run in runs)] for name in columns]
        return Listing(caption, ["measure", *runs], rows)
    return None


READING = {
    "tau": "A measure at 1 ranks the networks exactly as the target does, one at 0 no better than chance "
    "would. Where bars overlap the order of two measures is not sure; the table of differences says "
    "which are.",
    "values": "Each mark is one network, and each panel one measure, best first. A measure that ranks well has "
    "its marks along a rising line, straight or not.",
    "granulated": "Columns hold all but one hyperparameter equal. A measure that is good in the first picture for one "
    "hyperparameter alone (say, label noise) has one dark column here.",
}
"""Figure -> how to read it."""


def figures(table: Table) -> "dict[str, Figure]":
    """`tau`: how well each measure ranks, with intervals; `values`: the target against each measure; with hyperparameters
    `granulated`: how well each ranks networks that differ in one of them only. None if no measure ranks."""
    result = Result(table)
    if not result.taus:
        return {}
    with house.style():
        found = {"tau": _dots(result), "values": _scatter(result)}
        return found | ({"granulated": _heat(result)} if result.varying else {})


def _dots(result: Result) -> "Figure":
    """Measures from the best down, with intervals where there are."""
    rows = result.taus
    figure = house.figure(6.6, 1.3 + 0.3 * len(rows))
    axes = figure.add_subplot()
    axes.axvline(0, color="#555555", linewidth=0.8)
    for place, row in enumerate(rows):
        colour = "#" + scales.LINES[0 if row["measure"] == result.first else 4]
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
        axes.plot([row["value"]], [place], "o", color=colour, markersize=5.5)
    same = len({row["n"] for row in rows}) == 1
    labels = [_wrapped(result.label(row["measure"]), 38) + ("" if same else f" (n = {row['n']})") for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-1.04, 1.04)
    axes.grid(axis="x", color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"Kendall's tau with the {names.noun(result.target)}")
    house.footnote(figure, f"1: same order, -1: reverse order. {_bars(result)}")
    axes.set_title(f"How well measures rank {words.plural(result.networks, 'network')}", loc="left")
    return figure


def _bars(result: Result) -> str:
    """What the bars are, and why a measure has none."""
    level, lacking = 100 * result.table.provenance["spec"]["level"], [row["low"] is None for row in result.taus]
    if all(lacking):
        return f"No intervals: {words.plural(result.networks, 'network')} are too few for any."
    none = " No bar: too few networks for one." if any(lacking) else ""
    return f"Bars: {level:g} % intervals over networks, each for itself.{none}"


def _scatter(result: Result) -> "Figure":
    """The target against each measure, a panel each, the best first: where it ranks well, points rise to the right."""
    rows = result.taus
    across = min(ACROSS, len(rows))
    down = math.ceil(len(rows) / across)
    figure = house.figure(max(4.6, 2.5 * across), 0.7 + 2.3 * down)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    by = _colouring(result)
    for axes, row in zip(panels, rows, strict=False):
        _points(axes, result, row, by)
    for axes in panels[len(rows) :]:
        axes.set_visible(False)
    for axes in panels[: len(rows) : across]:
        axes.set_ylabel(_target(result))
    if by:
        handles, labels = _legend(panels[0], result, by)
        legend = figure.legend(
            handles, labels, loc="outside lower left", ncols=min(6, len(labels)), fontsize=8, title=by
        )
        legend.get_title().set_fontsize(8)
    return figure


def _points(axes: "Axes", result: Result, row: Record, by: str) -> None:
    """One panel."""
    measure, targets = row["measure"], result.values[result.target]
    found = {run: each["value"] for run, each in result.values[measure].items() if each["value"] is not None}
    finite = {run: value for run, value in found.items() if math.isfinite(value)}
    factor = _factor(result)
    for index, (_, mine) in enumerate(_classes(result, by).items()):
        shown = [run for run in mine if run in finite]
        place = [finite[run] for run in shown], [factor * targets[run]["value"] for run in shown]
        look = {"color": "#" + scales.LINES[index % len(scales.LINES)], "markersize": 4.5, "alpha": 0.85}
        axes.plot(*place, scales.MARKERS[index % len(scales.MARKERS)], markeredgewidth=0, **look)
    values = list(finite.values())
    if not measure.startswith("log_") and values and min(values) > 0 and max(values) >= SPREAD * min(values):
        _logarithmic(axes, min(values), max(values))
    else:
        axes.ticklabel_format(axis="x", scilimits=(-3, 4))
        axes.locator_params(axis="x", nbins=3)
    axes.xaxis.get_offset_text().set_fontsize(7)
    axes.tick_params(labelsize=7)
    if result.turned(measure):
        axes.invert_xaxis()
        axes.set_xlabel("axis turned: smaller to the right", fontsize=7)
    infinite = len(found) - len(finite)
    beyond = f"; {infinite} infinite, not shown" if infinite else ""
    name = _wrapped(result.label(measure), 30)
    axes.set_title(
        f"{name}\ntau = {row['value']:.2f} (n = {row['n']}{beyond})", fontsize=8, loc="left", parse_math=False
    )


def _logarithmic(axes: "Axes", low: float, high: float) -> None:
    """A horizontal axis with room for a few labels."""
    axes.set_xscale("log")
    ticks = scales.Scale(low, high, "log").ticks()
    kept = ticks[:: math.ceil(len(ticks) / 4)]
    axes.set_xticks(kept, [_short(tick) for tick in kept])
    axes.set_xticks([], minor=True)


def _short(tick: float) -> str:
    """A round number for a small axis: 500, or 5e5."""
    if 1e-3 <= tick < 1e4:
        return f"{tick:g}"
    mantissa, power = f"{tick:.0e}".split("e")
    return f"{mantissa}e{int(power)}"


def _colouring(result: Result) -> str:
    """The first hyperparameter that has few values, and is no seed; empty if there is none."""
    few = (name for name in result.varying if name != SEED and len(_classes(result, name)) <= len(scales.MARKERS))
    return next(few, "")


def _classes(result: Result, by: str) -> dict[str, list[str]]:
    """The networks by their value of a hyperparameter; all of them without one."""
    found: dict[str, list[str]] = {}
    for run in result.values[result.target]:
        found.setdefault(_text(result.hyper[run][by]) if by else "", []).append(run)
    return {name: found[name] for name in words.natural(found)}


def _legend(axes: "Axes", result: Result, by: str) -> tuple[Sequence[Any], list[str]]:
    return axes.lines, [name.replace("$", r"\$") for name in _classes(result, by)]


def _heat(result: Result) -> "Figure":
    """Hyperparameters x measures."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    measures, columns = [row["measure"] for row in result.taus], [*result.varying, "mean"]
    figure = house.figure(min(11.0, 4.6 + 0.75 * len(columns)), max(3.4, 2.2 + 0.32 * len(measures)))
    axes = figure.add_subplot()
    for y, measure in enumerate(measures):
        cells = [*(result.given(measure, name) for name in result.varying), result.granulated(measure)]
        for x, cell in enumerate(cells):
            _cell(axes, x + 0.25 * (x == len(result.varying)), y, cell)
    places = [x + 0.25 * (x == len(result.varying)) for x in range(len(columns))]
    heads = [_wrapped(name + (" (not in the mean)" if name == SEED else ""), 12) for name in columns]
    axes.set_xticks(places, heads, fontsize=8, parse_math=False)
    axes.set_yticks(
        range(len(measures)), [_wrapped(result.label(name), 38) for name in measures], fontsize=8, parse_math=False
    )
    axes.set_xlim(-0.5, places[-1] + 0.5)
    axes.set_ylim(len(measures) - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(
        ScalarMappable(Normalize(-1, 1), house.colormap(AGREE)), ax=axes, pad=0.02, fraction=0.05, aspect=18
    )
    bar.set_label(f"mean tau with the {names.noun(result.target)}")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    house.headline(figure, "Networks that differ in one hyperparameter only", 10)
    axes.set_xlabel("the hyperparameter")
    house.footnote(figure, "Below each number: groups of networks. Hatched: no such group.")
    return figure


def _cell(axes: "Axes", x: float, y: float, row: Record | None) -> None:
    from matplotlib.patches import Rectangle

    corner = (x - 0.5, y - 0.5)
    if row is None or row["value"] is None:
        axes.add_patch(Rectangle(corner, 1, 1, facecolor="#e6e6e6", edgecolor="#8a8a8a", hatch="////", linewidth=0))
        return
    colour = scales.colour((row["value"] + 1) / 2, AGREE)
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
    rests = f"\n{row['groups']}" if row["metric"] == "tau_given" else ""
    axes.text(x, y, f"{row['value']:.2f}{rests}", ha="center", va="center", fontsize=7, color=scales.ink(colour))


def _factor(result: Result) -> float:
    return 100.0 if _is_share(result) else 1.0


def _is_share(result: Result) -> bool:
    return next(iter(result.values[result.target].values()))["unit"] == names.SHARE


def _target(result: Result) -> str:
    unit = (" (points)" if result.target == "generalisation_gap" else " (%)") if _is_share(result) else ""
    return names.noun(result.target) + unit


def _read(value: float, unit: str) -> str:
    return words.quantity(100 * value, "%") if unit == names.SHARE else f"{value:.4g}"


def _number(row: Record | None) -> str:
    return "-" if row is None or row["value"] is None else f"{row['value'] + 0.0:.2f}"


def _ends(row: Record) -> str:
    return "-" if row["low"] is None else f"{row['low'] + 0.0:.2f} to {row['high'] + 0.0:.2f}"


def _estimate(row: Record | None) -> str:
    """A number and its interval."""
    if row is None or row["low"] is None:
        return _number(row)
    return f"{_number(row)} ({100 * row['level']:g} % interval {_ends(row)})"


def _grouped(row: Record | None) -> str:
    return "-" if row is None or row["value"] is None else f"{_number(row)} ({row['groups']})"


def _above(row: Record) -> bool:
    return row["low"] is not None and row["low"] > 0


def _below(row: Record) -> bool:
    return row["high"] is not None and row["high"] < 0


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False)
