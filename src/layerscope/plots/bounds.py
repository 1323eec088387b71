"""What can be said for sure of the error on new data: sentences, rows of text and a figure."""

import math
from typing import TYPE_CHECKING

from layerscope.plots import house, scales, words
from layerscope.plots.grid import Record, records
from layerscope.plots.weights import Listing
from layerscope.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHOLE = "whole network"
NOISY, ITSELF, CONDITIONAL = (
    "network under noise",
    "trained network",
    "trained network, if the conjecture holds",
)
BOUNDS = {
    "theorem_3.2": ("Theorem 3.2", NOISY),
    "pac_bayes_kl": ("PAC-Bayes-kl", NOISY),
    "corollary_3.3": ("Corollary 3.3, joint criticality", CONDITIONAL),
    "corollary_3.3_log": ("Corollary 3.3, logarithms", CONDITIONAL),
    "theorem_b.2": ("Theorem B.2", ITSELF),
    "parameter_count": ("counting parameters", ITSELF),
}
"""Metric -> what a bound is called, and whose error it bounds."""
LOGARITHMIC = 3.0
"""Bounds from so many times 100 % are drawn on a logarithmic axis."""


def sentences(table: Table) -> list[str]:
    """What each bound says, what it rests on, and whether the conjecture holds on test data."""
    said = []
    for eps in _eps(table):
        said += [*_point(table, eps), *_noisy(table, eps), *_conjecture(table, eps), *_conditional(table, eps)]
    for metric, what in (
        ("theorem_b.2", "norms of layers and a margin"),
        ("parameter_count", "the bits of all its values"),
    ):
        said += [_plain(table, row, what) for row in _rows(table, metric)]
    return [*said, *_measured(table)]


def listings(table: Table) -> list[Listing]:
    """All bounds; and of each eps the point that they rest on."""
    heads = [
        "bound",
        "error of",
        "eps",
        "training error",
        "at most",
        "complexity",
        "samples",
        "error on new data is at most",
    ]
    rows = [
        [
            BOUNDS[row["metric"]][0],
            BOUNDS[row["metric"]][1],
            _share(row["eps"]) if _has(row, "eps") else "-",
            _percent(row.get("error")),
            _percent(row.get("certificate")),
            words.number(_number(row.get("complexity")), "") if _has(row, "complexity") else "-",
            words.count(row["n"]) if _has(row, "n") else "-",
            f"{_percent(row['value'])}{' (vacuous)' if row['status'] == 'vacuous' else ''}"
            if _has(row, "value")
            else str(row["status"]),
        ]
        for row in records(table.frame)
        if row["metric"] in BOUNDS
    ]
    caption = (
        f"Bounds of the error on new data, each with probability {_level(table)}. They start from the error on the training "
        "data, where there is noise from an upper bound of it, and the corollary from eps; the complexity (nats) is what "
        "grows with the way from the start. "
        "A bound of 100 % or more is vacuous: it says nothing."
    )
    return [Listing(caption, heads, rows), *filter(None, (_modules(table, eps) for eps in _eps(table)))]


READING = {
    "bounds": "The farther left a bound, the more it proves about new data; a bound right of what guessing gives "
    "proves nothing. Errors that were measured on test data are drawn for comparison: no bound uses "
    "them.",
}
"""Figure -> how to read it."""


def figures(table: Table) -> "dict[str, Figure]":
    """`bounds`: each bound beside the errors on test data. Nothing, if no bound has a number."""
    rows = [row for row in records(table.frame) if row["metric"] in BOUNDS and _has(row, "value")]
    return {"bounds": _figure(table, rows)} if rows else {}


def _point(table: Table, eps: float) -> list[str]:
    """How far all modules go back at once."""
    rows = [row for row in _rows(table, "joint_criticality") if row["eps"] == eps]
    whole = next(row for row in rows if row["part"] == WHOLE)
    if not _has(whole, "value"):
        return [f"At an allowed training error of {_share(eps)} there is no bound with noise: {whole['reason']}."]
    n = sum(1 for row in rows if _has(row, "alpha"))
    log = next(row for row in _rows(table, "joint_log_criticality") if row["eps"] == eps and row["part"] == WHOLE)
    sure = "" if whole["status"] == "ok" else f" These draws do not make sure of the allowed {_share(eps)}."
    found = (
        "an upper bound of the smallest there is, found by a search" if not sure else "the least that a search found"
    )
    return [
        f"With all {words.plural(n, 'module')} moved toward the start and under noise at once, the expected training error is "
        f"{_percent(whole['error'])}, and at most {_percent(whole['certificate'])} by {words.plural(whole['n'], 'draw')} that "
        f"took no part in the search; {_share(eps)} was allowed.{sure} The joint criticality there is "
        f"{words.number(whole['value'], '')} ({words.number(log['value'], '')} nats in its logarithmic form), {found}: to go "
        "through all combinations is out of reach."
    ]


def _noisy(table: Table, eps: float) -> list[str]:
    """What holds for the network under noise."""
    found = [row for name in ("theorem_3.2", "pac_bayes_kl") for row in _rows(table, name) if row["eps"] == eps]
    if any(row["status"] == "not applicable" for row in found):
        return [f"Theorem 3.2 and what follows from it cannot be applied: {found[0]['reason']}."]
    if not all(_has(row, "value") for row in found):
        return []
    simple, tight = found
    given = f", {tight['reason']}" if tight["reason"] else ""
    says = (
        f"With probability {_level(table)} the error on new data of the network under that noise is at most "
        f"{_percent(tight['value'])} (PAC-Bayes-kl), or {_percent(simple['value'])} in the simpler form of Theorem 3.2; both "
        f"rest on {words.count(simple['n'])} training samples{given}."
    )
    return [says + _verdict(table, tight, simple)]


def _conditional(table: Table, eps: float) -> list[str]:
    """What holds for the trained network if the conjecture does."""
    found = [row for name in ("corollary_3.3", "corollary_3.3_log") for row in _rows(table, name) if row["eps"] == eps]
    if not found or not all(_has(row, "value") for row in found):
        return []
    ratio, log = found
    says = (
        f"If the conjecture holds, the error on new data of the trained network itself is at most {_percent(log['value'])} with "
        f"probability {_level(table)} (Corollary 3.3 with logarithms; {_percent(ratio['value'])} as printed, with the joint "
        "criticality)."
    )
    return [says + _verdict(table, log, ratio)]


def _conjecture(table: Table, eps: float) -> list[str]:
    """Whether noise on the way back makes the error on new data no smaller."""
    rows = [row for row in _rows(table, "conjecture") if row["eps"] == eps]
    if not rows:
        return [] if not _noisy(table, eps) else ["The conjecture was not tested: that takes test data."]
    (row,) = rows
    if not _has(row, "value"):
        return [f"The conjecture was not tested: {row['reason']}."]
    noisy = next(one for one in _rows(table, "expected_error") if one["eps"] == eps)
    if row["low"] > 0:
        verdict = "so that the conjecture holds at this point: noise makes it worse"
    elif row["high"] < 0:
        verdict = "so that the conjecture does not hold at this point: noise makes it better"
    else:
        verdict = "which does not decide whether the conjecture holds at this point"
    points = "percentage points"
    return [
        f"On test data the network under noise has an error of {_percent(noisy['value'])}, "
        f"{words.number(100 * row['value'], points)} {points} more than the trained one (between "
        f"{words.number(100 * row['low'], points)} and {words.number(100 * row['high'], points)}; "
        f"{words.count(row['n'])} samples), {verdict}."
    ]


def _plain(table: Table, row: Record, what: str) -> str:
    """A bound of the trained network without noise."""
    called = BOUNDS[row["metric"]][0]
    if not _has(row, "value"):
        return f"{called} cannot be applied: {row['reason']}."
    given = f", {row['reason']}" if row["reason"] else ""
    begin = "Theorem B.2" if row["metric"] == "theorem_b.2" else "Counting parameters"
    return (
        f"{begin} bounds the error on new data of the trained network by {_percent(row['value'])} with probability "
        f"{_level(table)}, from {what}{given}.{_verdict(table, row)}"
    )


def _verdict(table: Table, *rows: Record) -> str:
    """What a bound is worth, where it is not worth much."""
    vacuous, chance = [row["status"] == "vacuous" for row in rows], _number(table.provenance.get("chance"))
    if all(vacuous):
        return f" {'Both are' if len(rows) > 1 else 'It is'} vacuous: an error is never above 100 %."
    if rows[0]["value"] >= chance:
        return f" That is no better than guessing, which has {_percent(chance)} wrong."
    return " The second is vacuous: an error is never above 100 %." if any(vacuous) else ""


def _measured(table: Table) -> list[str]:
    """What the trained network does on test data."""
    return [
        f"For comparison: the trained network has {_percent(row['value'])} of {words.count(row['n'])} test samples wrong "
        f"({_percent(row['low'])} to {_percent(row['high'])} in the population)."
        for row in _rows(table, "error")
        if row["split"] == "test"
    ]


def _modules(table: Table, eps: float) -> Listing | None:
    """The point of an eps, a row a module."""
    ratios, logs = (
        [row for row in _rows(table, metric) if row["eps"] == eps and _has(row, "value")]
        for metric in ("joint_criticality", "joint_log_criticality")
    )
    if not ratios:
        return None
    rows = [
        [
            ratio["part"],
            words.count(ratio["n"]) if _has(ratio, "distance") and _has(ratio, "n") else "",
            *(
                words.number(_number(ratio[key]), "") if _has(ratio, key) else ""
                for key in ("distance", "alpha", "sigma")
            ),
            words.number(ratio["value"], ""),
            words.number(log["value"], ""),
        ]
        for ratio, log in zip(ratios, logs, strict=True)
    ]
    caption = (
        f"How far each module goes back where all do at once, for an allowed training error of {_share(eps)}: to the place "
        "alpha between its start (0) and trained values (1), with noise of standard deviation sigma; D is how far it moved. The "
        "sums of the last two columns are what bounds grow with."
    )
    return Listing(caption, ["module", "parameters", "D", "alpha", "sigma", "alpha² D² / sigma²", "nats"], rows)


def _figure(table: Table, rows: list[Record]) -> "Figure":
    lines = _references(table)
    with house.style():
        figure = house.figure(7.6, 2.6 + 0.32 * len(rows) + 0.1 * len(lines))
        axes = figure.add_subplot()
        places = range(len(rows))
        values = [100 * row["value"] for row in rows]
        top = max([*values, 100.0])
        logarithmic = top > 100 * LOGARITHMIC
        shown = [value for value in [*values, *(value for *_, value, _, _ in lines)] if value > 0]
        if logarithmic:
            axes.set_xscale("log")
            axes.set_xlim(min(shown) / 1.6, top * 2)
        else:
            axes.set_xlim(0, top * 1.12)
            axes.set_xticks([tick for tick in range(0, 301, 25) if tick <= top * 1.12])
        axes.axvspan(100, axes.get_xlim()[1], color="#ececec", zorder=0, linewidth=0)
        axes.text(100, -0.75, " vacuous", ha="left", va="center", fontsize=7.5, color="#555555")
        for index, (name, look, value, low, high) in enumerate(lines):
            colour = "#444444" if name.startswith("guessing") else "#" + scales.LINES[index % len(scales.LINES)]
            label = f"{name}: {words.number(value, '%')} %"
            axes.axvline(value, color=colour, linestyle=look, linewidth=1.2, label=label, zorder=1)
            if math.isfinite(low):
                axes.axvspan(low, high, color=colour, alpha=0.15, linewidth=0, zorder=0.5)
        for place, row, value in zip(places, rows, values, strict=True):
            of_itself = BOUNDS[row["metric"]][1]
            look = {"marker": "o", "markerfacecolor": "white"} if of_itself == NOISY else {"marker": "D"}
            look |= {"marker": "s"} if of_itself == ITSELF else {}
            axes.plot(value, place, color="#222222", linestyle="none", markersize=5.5, zorder=3, **look)  # pyright: ignore[reportArgumentType]
            axes.annotate(
                f"{words.short(value, '%')} %",
                (value, place),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
            )
        _labels(axes, rows, logarithmic)
        house.headline(figure, _title(table, rows))
        figure.legend(loc="outside lower left", ncols=2, fontsize=7.5)
    return figure


def _title(table: Table, rows: list[Record]) -> str:
    data, m = words.data_name(table.provenance), max(row["n"] for row in rows)
    about = f"{words.count(m)} training samples{f' of {data}' if data else ''}"
    return f"Upper bounds of the error on new data, each with probability {_level(table)}; {about}"


def _labels(axes: "Axes", rows: list[Record], logarithmic: bool) -> None:
    names = [BOUNDS[row["metric"]][0] + (f" (eps = {_share(row['eps'])})" if _has(row, "eps") else "") for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -1.1)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"% error{' (logarithmic scale)' if logarithmic else ''}")
    if logarithmic:
        ticks = [10.0**k for k in range(-2, 12) if axes.get_xlim()[0] <= 10.0**k <= axes.get_xlim()[1]]
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        axes.minorticks_off()
    shapes = {NOISY: ("o", "white"), CONDITIONAL: ("D", "#222222"), ITSELF: ("s", "#222222")}
    for kind, (marker, face) in shapes.items():
        if any(BOUNDS[row["metric"]][1] == kind for row in rows):
            axes.plot(
                [], [], color="#222222", linestyle="none", marker=marker, markerfacecolor=face, label=f"of the {kind}"
            )


def _references(table: Table) -> list[tuple[str, str, float, float, float]]:
    """What is measured beside the bounds, in per cent: name, line, value, interval."""
    found = [
        (
            f"trained network, test data (n = {words.count(row['n'])})",
            "-",
            *(100 * row[key] for key in ("value", "low", "high")),
        )
        for row in _rows(table, "error")
        if row["split"] == "test"
    ]
    found += [
        (
            f"under noise, test data (eps = {_share(row['eps'])}, n = {words.count(row['n'])})",
            "--",
            *(100 * row[key] for key in ("value", "low", "high")),
        )
        for row in _rows(table, "expected_error")
        if _has(row, "value")
    ]
    chance = 100 * _number(table.provenance.get("chance"))
    return found + ([("guessing", ":", chance, math.nan, math.nan)] if math.isfinite(chance) else [])


def _rows(table: Table, metric: str) -> list[Record]:
    return records(table.where(metric=metric))


def _eps(table: Table) -> list[float]:
    """The allowed errors, in order."""
    return list(dict.fromkeys(float(row["eps"]) for row in _rows(table, "joint_criticality")))


def _level(table: Table) -> str:
    return f"{100 * table.provenance['spec']['level']:g} %"


def _has(row: Record, key: str) -> bool:
    return math.isfinite(_number(row.get(key)))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _share(eps: object) -> str:
    """An allowed error as it was given."""
    return f"{100 * _number(eps):g} %"


def _percent(fraction: object) -> str:
    value = 100 * _number(fraction)
    return "-" if math.isnan(value) else f"{words.number(value, '%' if value < 1000 else '')} %"
