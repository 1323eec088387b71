"""How layers stretch space as training goes on: the spectra of linear maps, in words, rows of text and lines."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerscope.errors import UseError, unknown
from layerscope.plots import house, scales, words
from layerscope.plots.about import About
from layerscope.plots.curves import draw, legend
from layerscope.plots.grid import Record, records
from layerscope.plots.series import MOST, Line, Panel
from layerscope.plots.weights import Listing
from layerscope.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 6
"""Layers whose spectra are drawn, if nobody says which."""
LINES = 8
"""Epochs that a spectrum is drawn of."""
LEAST = 1e-3
"""Singular values below this times the largest are not drawn: they would take most of a logarithmic axis."""
ZERO, START = "all its values are 0", "start"
LARGEST, FROBENIUS, EFFECTIVE, STABLE = (
    f"operator_{name}" for name in ("largest", "frobenius", "effective", "stable_rank")
)


@dataclass(frozen=True)
class Read:
    """A table of spectra by layer and checkpoint; those within an epoch are in the table only. `rows` have a number."""

    about: About
    parts: list[str]
    steps: list[int]
    rows: Mapping[tuple[str, int, str, str], Record]
    singular: Mapping[tuple[str, int], list[Record]]
    missing: Mapping[str, list[str]]

    @classmethod
    def of(cls, table: Table) -> "Read":
        rows: dict[tuple[str, int, str, str], Record] = {}
        singular: dict[tuple[str, int], list[Record]] = {}
        missing: dict[str, dict[str, None]] = {}
        for row in records(table.frame):
            if row["status"] != "ok":
                if row["reason"] != ZERO:
                    missing.setdefault(row["reason"], {})[row["part"]] = None
            elif row.get("iteration"):
                continue
            elif row["metric"] == "singular_value":
                singular.setdefault((row["part"], row["step"]), []).append(row)
            else:
                rows[row["part"], row["step"], row["metric"], row.get("to") or ""] = row
        steps = sorted({step for _, step, _, _ in rows})
        told = {reason: list(parts) for reason, parts in missing.items()}
        return cls(About.of(table), table.parts(), steps, rows, singular, told)

    @property
    def first(self) -> int:
        return self.steps[0] if self.steps else 0

    @property
    def last(self) -> int:
        return self.steps[-1] if self.steps else 0

    def row(self, part: str, step: int, metric: str, to: str = "") -> Record | None:
        """A number's row, if there is a number."""
        return self.rows.get((part, step, metric, to))

    def with_values(self) -> list[str]:
        """The layers whose singular values there are."""
        return [part for part in self.parts if any((part, step) in self.singular for step in self.steps)]

    def moved(self) -> dict[str, float]:
        """Layer -> largest singular value of its difference to the start at the end, where it is above 0."""
        rows = {part: self.row(part, self.last, LARGEST, START) for part in self.parts}
        return {part: row["value"] for part, row in rows.items() if row and row["value"] > 0}

    def ratios(self, metric: str) -> dict[str, float]:
        """Layer -> its number at the end over that at the beginning; nothing where these are one."""
        if self.first == self.last:
            return {}
        ends = {part: [self.row(part, step, metric) for step in (self.first, self.last)] for part in self.parts}
        return {p: b["value"] / a["value"] for p, (a, b) in ends.items() if a and b and a["value"] > 0}


def sentences(table: Table) -> list[str]:
    """What the spectra say, and what they do not."""
    read = Read.of(table)
    there = [part for part in read.parts if read.row(part, read.last, LARGEST)]
    said = [*_what(read, there), *_of_convolutions(read, there)] if there else []
    if ratios := read.ratios(LARGEST):
        said.append(
            f"From {_called(read, read.first)} to {_called(read, read.last)} the largest singular value {_span(ratios)}; the "
            f"median factor is {words.number(statistics.median(ratios.values()), '')}."
        )
    if effective := read.ratios(EFFECTIVE):
        said.append(f"The effective number of singular values {_span(effective)}.")
    if moved := read.moved():
        most, least = max(moved, key=lambda part: moved[part]), min(moved, key=lambda part: moved[part])
        origin = "pretrained values" if read.about.pretrained else "start"
        said.append(
            f"What training added to a layer has a largest singular value of {words.number(moved[least], '')} ({least}) to "
            f"{words.number(moved[most], '')} ({most}): this is how far the layer moved from its {origin}, as an operator."
        )
    if there:
        said.append(
            "None of this says which layers matter: layers that can be put back to their start without loss, and others that "
            "cannot, may have spectra that look the same."
        )
    return [*said, *(f"Not all is known of {words.listed(parts)}: {reason}." for reason, parts in read.missing.items())]


def _what(read: Read, there: Sequence[str]) -> list[str]:
    steps, step = read.steps, read.about.step
    when = f"{step} {steps[0]}" if len(steps) == 1 else f"{len(steps)} {step}s from {steps[0]} to {steps[-1]}"
    return [
        f"The singular values of {words.plural(len(there), 'layer')} as linear maps say how much each can stretch what comes "
        f"in; they are computed from all weights at {when}, not from samples, so that they have no intervals."
    ]


def listings(table: Table) -> list[Listing]:
    """One row a layer: its largest singular value and ranks at the first checkpoint and the last, and of the difference."""
    read = Read.of(table)
    ends, moved = list(dict.fromkeys((read.first, read.last))), bool(read.moved())
    columns = [(name, step, "") for name in (LARGEST, STABLE, EFFECTIVE) for step in ends]
    columns += [(LARGEST, read.last, START), (FROBENIUS, read.last, START)] if moved else []
    named = {LARGEST: "largest", STABLE: "stable rank", EFFECTIVE: "effective number", FROBENIUS: "2-norm"}
    heads = [f"{named[m]}{' of the difference' if to else f', {_called(read, step)}'}" for m, step, to in columns]
    rows = []
    for part in read.parts:
        row = read.row(part, read.last, LARGEST)
        about = [words.count(row["n"]), str(row["operator"])] if row else ["-", "-"]
        rows.append([part, *about, *(_number(read.row(part, step, m, to)) for m, step, to in columns)])
    caption = (
        "Singular values of each layer as a linear map from inputs to outputs: how many there are, the largest, the stable rank "
        "(sum of squares / largest square) and the effective number of them (exponential of the entropy of their shares of the "
        "sum). Of: the layer itself, or circular, the same convolution on inputs that go round in circles, in place of zeros "
        "around them."
    )
    caption += (
        " Difference: trained values less those of the start. Its 2-norm is always of the layer itself."
        if moved
        else ""
    )
    return [Listing(caption, [read.about.part, "values", "of", *heads], rows)] if rows else []


READING = {
    "spectra": "Each line has all singular values of a layer at one time of training, from the largest (left) to "
    "the smallest: how strongly the layer stretches each of its directions. Where lines lie on each "
    "other training left the spectrum as it was; where later ones rise at the left only, few directions "
    "grew.",
    "difference": "Each line is one layer over training: how strongly what training has added to it can act on an "
    "input. Far does not mean critical.",
}
"""Figure -> how to read it."""


def figures(table: Table) -> "dict[str, Figure]":
    """Spectra over training, and how large what training added is."""
    read, found = Read.of(table), {}
    if read.with_values():
        found["spectra"] = spectra_figure(table)
    if read.moved():
        found["difference"] = difference_figure(table)
    return found


def spectra_figure(table: Table, parts: Sequence[str] | None = None) -> "Figure":
    """The singular values of layers at each epoch, from the largest to the smallest: a panel a layer, a line an epoch.

    Some layers are drawn, evenly over the depth of the network, if `parts` does not say which; at most 8 epochs, spread as
    epochs are elsewhere. Values below a thousandth of the largest are not drawn.
    Source: chatterji2020, Fig. 3. Differs from the paper: the horizontal axis is a share, so that layers can be compared.
    """
    read = Read.of(table)
    there = read.with_values()
    if not there:
        raise UseError("this table has no singular values: ask for some with SpectraSpec(values=64)")
    for part in parts or ():
        if part not in there:
            raise unknown("layer with a spectrum", part, there)
    chosen = list(parts) if parts else [there[i] for i in _evenly(len(there), SHOWN)]
    steps = [step for step in read.steps if (there[0], step) in read.singular]
    drawn = [steps[i] for i in _evenly(len(steps), LINES, spread=True)]
    columns = min(3, len(chosen))
    below = math.ceil(len(chosen) / columns)
    with house.style():
        figure = house.figure(2.7 * columns + 1.2, 2.3 * below + 0.7)
        places = figure.subplots(below, columns, squeeze=False, sharex=True).flatten()
        for axes, part in zip(places, chosen, strict=False):
            _spectrum(axes, read, part, drawn)
        for axes in places[len(chosen) :]:
            axes.set_visible(False)
        handles = places[0].get_lines()
        labels = [f"{step}" + {0: f" ({read.about.start})", read.last: " (trained)"}.get(step, "") for step in drawn]
        figure.legend(handles, labels, loc="outside right upper", title=read.about.step, fontsize=8)
        others = f", {len(chosen)} of {len(there)} layers" if len(chosen) < len(there) else ""
        house.headline(figure, f"Singular values of layers over training{others}", 10.8)
        house.below(figure, "share of all singular values, from the largest (down to a thousandth of it)")
        figure.supylabel("singular value", fontsize=9)
    return figure


def difference_figure(table: Table) -> "Figure":
    """How large what training added to each layer is, as an operator: its largest singular value over epochs.

    At most 24 layers, those where it is largest. Source: chatterji2020, Fig. 8.
    """
    read = Read.of(table)
    about, lines = read.about, []
    for part in read.parts:
        rows = [(step, read.row(part, step, LARGEST, START)) for step in read.steps]
        kept = [(step, float(row["value"])) for step, row in rows if row and row["value"] > 0]
        if kept:
            none = (math.nan,) * len(kept)
            lines.append(Line(part, tuple(s for s, _ in kept), tuple(v for _, v in kept), none, none))
    if not lines:
        raise UseError("this table has no differences to a start")
    largest = sorted(lines, key=lambda line: -max(line.values))[:MOST]
    shown = tuple(line for line in lines if line in largest)
    scale = scales.of_amounts([value for line in shown for value in line.values])
    panel = Panel(LARGEST, "", shown, scale, about, len(lines) - len(shown))
    origin = "pretrained values" if about.pretrained else "start"
    with house.style():
        columns = 1 if len(shown) <= 16 else 2
        figure = house.figure(8.4 + 2 * (columns - 1), max(3.7, 0.2 * math.ceil(len(shown) / columns) + 1.5))
        axes = figure.add_subplot()
        draw(axes, panel)
        house.headline(figure, f"How far each layer is from its {origin}, as an operator", 10)
        said = [f"Lines: the {len(shown)} of {len(lines)} layers where it is largest."] if panel.others else []
        names = [line.name for line in shown]
        if circular := _circular(read, names):
            itself = [name for name in names if name not in circular]
            but = f" but {words.listed(itself, MOST)} (the layer itself)" if itself else ""
            said.append(f"All lines{but} are circular: of the same convolution on inputs that go round in circles.")
        if said:
            house.footnote(figure, " ".join(said))
        axes.set_xlabel(f"{about.step} (early ones spread; 0 at {about.origin})")
        kind = f"\n({scale.words} scale)" if scale.words else ""
        axes.set_ylabel(f"largest singular value of the difference{kind}")
        legend(axes, panel, loc="upper left", bbox_to_anchor=(1.01, 1.0), ncols=columns)
    return figure


def _spectrum(axes: "Axes", read: Read, part: str, steps: Sequence[int]) -> None:
    """One layer: a line an epoch, the later the darker."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    for number, step in enumerate(steps):
        rows = sorted(read.singular.get((part, step), []), key=lambda row: row["index"])
        kept = [row for row in rows if row["value"] > LEAST * rows[0]["value"]]
        places = [row["index"] / max(1, row["n"] - 1) for row in kept]
        shade = scales.colour(0.25 + 0.75 * number / max(1, len(steps) - 1), scales.ERROR)
        dash = "--" if step == 0 else "-"
        axes.plot(places, [row["value"] for row in kept], color=shade, linewidth=1.3, linestyle=dash)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    counts = {(row["n"], row["operator"]) for row in read.singular.get((part, steps[-1]), [])}
    said = ", ".join(f"{words.count(n)} values{', circular' * (of == 'circular')}" for n, of in counts)
    axes.set_title(f"{words.shortened(part, 30)}\n{said}", loc="left", fontsize=8.5, parse_math=False)


def _evenly(n: int, most: int, spread: bool = False) -> list[int]:
    """Some of n indices, the first and the last among them; with `spread` more of the early ones."""
    if n <= most:
        return list(range(n))
    place = (lambda x: (n**x - 1) / (n - 1) * (n - 1)) if spread else (lambda x: x * (n - 1))
    return sorted({round(place(i / (most - 1))) for i in range(most)})


def _number(row: Record | None) -> str:
    return words.number(row["value"], "") if row else "-"


def _called(read: Read, step: int) -> str:
    """A checkpoint in a word, as the head of a column."""
    if step == read.last:
        return "trained"
    return read.about.start if step == 0 else f"{read.about.step} {step}"


def _circular(read: Read, parts: Sequence[str]) -> list[str]:
    """The layers that are approximated by circular convolutions."""
    rows = {part: read.row(part, read.last, LARGEST) for part in parts}
    return [part for part, row in rows.items() if row and row["operator"] == "circular"]


def _of_convolutions(read: Read, parts: Sequence[str]) -> list[str]:
    """Which layers the numbers are only about."""
    circular = len(_circular(read, parts))
    if not circular:
        return []
    return [
        f"{words.plural(circular, 'convolution')} with zeros around the input {'is' if circular == 1 else 'are'} approximated by "
        "the same weights on inputs that go round in circles. On small inputs, such as 7 x 7, the largest value differs from the "
        "layer's own by a few per cent, the stable rank and values in the middle by more, up to tens of per cent, and the small "
        "values by factors."
    ]


def _span(ratios: Mapping[str, float]) -> str:
    """From which factor to which, and of which layers."""
    least, most = min(ratios, key=lambda part: ratios[part]), max(ratios, key=lambda part: ratios[part])
    if len(ratios) == 1:
        return f"changed by a factor of {words.number(ratios[most], '')} ({most})"
    low, high = (f"{words.number(ratios[part], '')} ({part})" for part in (least, most))
    return f"changed by factors from {low} to {high}"
