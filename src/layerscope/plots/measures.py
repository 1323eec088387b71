"""Measures of a whole network that are said to predict how well it generalises: sentences, tables and figures."""

import math
from typing import TYPE_CHECKING

from layerscope.measures.catalogue import DIRECTION, LABELS, MEASURES, SOURCES
from layerscope.partition import WHOLE
from layerscope.plots import house, scales, words
from layerscope.plots.grid import Record, records
from layerscope.plots.weights import Listing
from layerscope.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHARES = ("log_pfn", "log_psn", "distance_squared", "criticality")
"""Measures whose shares of modules are drawn."""
LISTED = ("log_pfn", "log_psn", "distance_squared", "sosp", "pac_bayes", "criticality")
NAMES = {
    "log_pfn": "log 2-norm of weights",
    "log_psn": "log spectral norm",
    "distance_squared": "squared distance from the start",
    "sosp": "parameters x spectral norm of the change",
    "pac_bayes": "PAC-Bayes",
    "criticality": "criticality",
}
"""What a module's share of a measure is called."""
EDGE = "on the edge"


def sentences(table: Table) -> list[str]:
    """What was found, in plain English."""
    whole = _whole(table)
    said = [_errors(table), _without_noise(table), _modules(table)]
    if whole:
        said.append(
            "No measure says anything by itself: each is meant for comparing networks, and a table says of each whether networks "
            "with the larger or the smaller value are predicted to have the larger gap."
        )
    said += [_largest(table, name) for name in ("distance_squared", "criticality")]
    said += [_flat(table, whole), _worst(table, whole)]
    edges = [f"{LABELS[name]} ({row['reason']})" for name, row in whole.items() if row["status"] == EDGE]
    if edges:
        said.append(f"At an end of what was searched, so that the true value may lie beyond: {words.listed(edges)}.")
    without = [f"{LABELS[name]} ({row['reason']})" for name, row in whole.items() if not _is_number(row)]
    if without:
        said.append(f"Without a value: {'; '.join(words.some(without, 8))}.")
    return [text for text in said if text]


def listings(table: Table) -> list[Listing]:
    """All measures, and the shares that modules have in those that are sums."""
    whole = _whole(table)
    heads = ["measure", "value", "interval", "gap predicted larger for", "source", "remark"]
    rows = [
        [
            LABELS[name],
            _value(row),
            _interval(row),
            "larger values" if DIRECTION[name] > 0 else "smaller values",
            SOURCES[name],
            _remark(row),
        ]
        for name, row in whole.items()
    ]
    caption = (
        "Measures of the whole network; logarithms are natural. Compare a measure between networks: its rank is what predicts. "
        "Numbers of different measures say nothing about each other."
    )
    found = [Listing(caption, heads, rows)] if rows else []
    names = [name for name in LISTED if name in whole and len(_parts(table, name))]
    shares = {name: {row["part"]: row for row in _parts(table, name)} for name in names}
    modules = list(dict.fromkeys(part for cells in shares.values() for part in cells))
    if modules:
        lines = [[part, *(_cell(shares[name].get(part)) for name in names)] for part in modules]
        total = ["all", *(_value(whole[name]) for name in names)]
        caption = (
            "What each module (the weights of a linear layer or convolution) adds to the measures that are sums over modules; "
            "products of norms are sums of their logarithms."
        )
        found.append(Listing(caption, ["module", *(NAMES[name] for name in names)], [*lines, total]))
    return found


READING = {
    "modules": "Each bar is what one module adds to the measure at the top; a panel's bars make its sum. Panels "
    "have scales of their own.",
}
"""Figure -> how to read it."""


def figures(table: Table) -> dict[str, "Figure"]:
    """What each module adds to the measures that are sums over modules, a panel each; none where there are no modules."""
    shown = [name for name in SHARES if _parts(table, name)]
    if not shown:
        return {}
    modules = list(dict.fromkeys(row["part"] for name in shown for row in _parts(table, name)))
    labels = words.labels(modules, 28)
    with house.style():
        figure = house.figure(2.6 * len(shown) + 1.6, max(2.4, 0.21 * len(modules) + 1.3))
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, shown, strict=True):
            _panel(axes, name, {row["part"]: row for row in _parts(table, name)}, modules, _whole(table).get(name))
        panels[0].set_yticks(range(len(modules)), [labels[part] for part in modules])
        panels[0].set_ylim(len(modules) - 0.4, -0.6)
        title = f"What each of {words.plural(len(modules), 'module')} adds to four measures of the network"
        house.headline(figure, title.replace("four", _count(len(shown))), weight="normal")
    return {"modules": figure}


def _panel(axes: "Axes", name: str, cells: dict[str, Record], modules: list[str], total: Record | None) -> None:
    """Bars of one measure, from 0; what has no value is said in its place."""
    colour = f"#{scales.LINES[SHARES.index(name) % len(scales.LINES)]}"
    numbers = {at: cells[part]["value"] for at, part in enumerate(modules) if _is_number(cells.get(part))}
    edges = [cells[modules[at]]["status"] == EDGE for at in numbers]
    bars = axes.barh(list(numbers), list(numbers.values()), color=colour, height=0.7)
    for bar, edge in zip(bars, edges, strict=True):
        if edge:
            bar.set(facecolor="white", edgecolor=colour, hatch="////")
    for at, part in enumerate(modules):
        if at not in numbers:
            row = cells.get(part)
            axes.annotate(
                row["status"] if row else "–", (0, at), (3, 0), textcoords="offset points", va="center", fontsize=7
            )
    axes.axvline(0, color="#555555", linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    unit = {"nats": "nats", "squared parameter units": "squared parameter units"}.get(
        next(iter(cells.values()))["unit"], ""
    )
    axes.set_xlabel(unit or ("D² α² / σ²" if name == "criticality" else ""))
    heading = NAMES[name][:1].upper() + NAMES[name][1:]
    said = f"sum {_value(total)}" if total is not None and _is_number(total) else "no sum"
    if any(edges):
        said += "; hatched: at an end\nof what was searched"
    axes.set_title(heading, loc="left", fontsize=9.0, pad=22 if any(edges) else 14)
    axes.annotate(said, (0, 1), (0, 2), "axes fraction", "offset points", fontsize=7.5, color="#555555")


def _whole(table: Table) -> dict[str, Record]:
    """Measure -> its row for the whole network, in the order of the catalogue."""
    found = {row["metric"]: row for row in records(table.where(part=WHOLE))}
    return {name: found[name] for name in MEASURES if name in found}


def _parts(table: Table, name: str) -> list[Record]:
    return [row for row in records(table.where(metric=name)) if row["part"] != WHOLE]


def _errors(table: Table) -> str:
    """How the network does on both splits."""
    rows = {row["split"]: row for row in records(table.where(metric="error", part=WHOLE))}
    parts = [
        f"{100 * rows[s]['value']:.2f} % of {words.count(rows[s]['n'])} {name} samples"
        for s, name in _SPLITS
        if s in rows
    ]
    if not parts:
        return ""
    text = f"The trained network is wrong on {' and '.join(parts)}"
    gap = next(iter(records(table.where(metric="generalisation_gap", split=""))), None)
    if gap is None or not _is_number(gap):
        return f"{text}. Without test data there is no generalisation gap."
    ends = f"{100 * gap['level']:g} % interval {100 * gap['low']:.2f} to {100 * gap['high']:.2f}"
    return (
        f"{text}: a generalisation gap of {100 * gap['value']:.2f} percentage points ({ends}, for this network and test samples "
        "as draws of all there could be)."
    )


_SPLITS = (("test", "test"), ("train", "training"))
RECOVERED = "recovered"
"""The split of training data with the labels that they had before label noise."""


def _without_noise(table: Table) -> str:
    """What errors and gap are against the labels before the noise."""
    gaps = [row for row in records(table.where(metric="generalisation_gap", split=RECOVERED)) if _is_number(row)]
    if not gaps:
        return ""
    (error,), (gap,) = records(table.where(metric="error", split=RECOVERED)), gaps
    changed = words.plural(table.provenance["changed_labels"], "training label")
    return (
        f"That gap is clean test error less the error on noisy labels, for {changed} had been changed. Against the labels before "
        f"that {100 * error['value']:.2f} % of the training samples are wrong, and the gap is {100 * gap['value']:.2f} "
        f"percentage points ({100 * gap['level']:g} % interval {100 * gap['low']:.2f} to {100 * gap['high']:.2f})."
    )


def _modules(table: Table) -> str:
    """What measures are of."""
    row = next(iter(records(table.where(metric="parameters"))), None)
    modules = len(_parts(table, "log_pfn")) or len(_parts(table, "distance_sum"))
    left = len(table.provenance.get("left_out", {}))
    size = f"It has {words.count(int(row['value']))} parameters. " if row is not None else ""
    if not modules:
        return size.strip()
    rest = f"; {words.plural(left, 'other tensor')} (biases, norm layers and such) are in none" if left else ""
    return f"{size}Sums and products over modules are over the weights of {words.plural(modules, 'linear map')}{rest}."


def _largest(table: Table, name: str) -> str:
    """Which module has the largest share of a sum."""
    rows, total = [row for row in _parts(table, name) if _is_number(row)], _whole(table).get(name)
    if len(rows) < 2 or total is None or not _is_number(total) or not total["value"] > 0:
        return ""
    top = max(rows, key=lambda row: row["value"])
    what, share = LABELS[name].removeprefix("network "), 100 * top["value"] / total["value"]
    return f"Of the network's {what} ({_value(total)}), {share:.0f} % is that of {top['part']}."


def _flat(table: Table, whole: dict[str, Record]) -> str:
    row = whole.get("flatness_gaussian")
    if row is None or not _is_number(row):
        return ""
    ends = f", {100 * row['level']:g} % interval {_interval(row)}" if _interval(row) else ""
    return (
        f"All parameters together bear Gaussian noise of standard deviation {_value(row)} before the expected training error "
        f"rises by more than {_points(table)} ({words.plural(int(row['n']), 'draw')} of the noise{ends})."
    )


def _worst(table: Table, whole: dict[str, Record]) -> str:
    row = whole.get("flatness_worst")
    if row is None or not _is_number(row) or row["status"] == EDGE:
        return ""
    climb = table.provenance["spec"]["climb"]
    return (
        f"Gradient ascent found a network whose training loss is {climb:g} nats higher within {100 * row['value']:.3g} % of each "
        "parameter tensor's norm; a nearer one may exist."
    )


def _points(table: Table) -> str:
    return f"{100 * table.provenance['spec']['rise']:g} percentage points"


def _is_number(row: Record | None) -> bool:
    return row is not None and row["value"] is not None and math.isfinite(row["value"])


def _value(row: Record) -> str:
    if not _is_number(row):
        return "-"
    return words.count(int(row["value"])) if row["metric"] == "parameters" else words.number(row["value"], "")


def _cell(row: Record | None) -> str:
    return "-" if row is None else _value(row) + (" *" if row["status"] == EDGE else "")


def _interval(row: Record) -> str:
    if not row["interval"] or not all(math.isfinite(row[end]) for end in ("low", "high")):
        return ""
    low, high = (words.number(row[end], "") for end in ("low", "high"))
    return f"{low} to {high}"


def _remark(row: Record) -> str:
    return row["reason"] if row["status"] == "ok" else f"{row['status']}: {row['reason']}"


def _count(n: int) -> str:
    return ("no", "one", "two", "three", "four")[n]
