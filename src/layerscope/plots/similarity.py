"""Where activations change when a part is put back: centred kernel alignment, in words, rows of text, maps and lines."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerscope.errors import UseError, unknown
from layerscope.plots import house, scales, words
from layerscope.plots.about import About
from layerscope.plots.curves import draw, legend
from layerscope.plots.grid import records
from layerscope.plots.series import MOST, Line, Panel
from layerscope.plots.weights import Listing
from layerscope.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SHOWN = 4
"""Parts whose maps are drawn, if nobody says which."""
SIMILAR = 0.9
"""Activations of this CKA or more are called similar: a word, and no more than that."""
COLOURS = tuple(reversed(scales.ERROR))
"""Light is similar, as elsewhere light is none wrong."""
KINDS = {"cka_linear": "linear CKA", "cka_rbf": "CKA with a Gaussian kernel"}


@dataclass(frozen=True)
class Read:
    """A table of similarities by part, checkpoint and layer; checkpoints within an epoch are in the table only."""

    about: About
    metric: str
    n: int
    parts: list[str]
    steps: list[int]
    layers: list[str]
    values: Mapping[tuple[str, int, str], float]
    missing: Mapping[str, list[str]]

    @classmethod
    def of(cls, table: Table) -> "Read":
        rows = [row for row in records(table.frame) if not row.get("iteration")]
        found = [row for row in rows if row["status"] == "ok"]
        missing: dict[str, dict[str, None]] = {}
        for row in rows:
            if row["status"] != "ok":
                what = f"layer {row['layer']}" if row.get("layer") else str(row["part"])
                missing.setdefault(row["reason"], {})[what] = None
        return cls(
            About.of(table),
            str(rows[0]["metric"]) if rows else "",
            max((row["n"] for row in found), default=0),
            list(dict.fromkeys(row["part"] for row in found)),
            sorted({row["step"] for row in found}),
            list(dict.fromkeys(row["layer"] for row in found)),
            {(row["part"], row["step"], row["layer"]): row["value"] for row in found},
            {reason: list(where) for reason, where in missing.items()},
        )

    @property
    def kind(self) -> str:
        """The metric in words."""
        return kernel(self.metric)

    @property
    def last(self) -> str:
        """The last layer that is compared."""
        return self.layers[-1]

    def lines(self, part: str, layer: str) -> tuple[list[int], list[float]]:
        """Epochs, and the similarity at each."""
        there = [step for step in self.steps if (part, step, layer) in self.values]
        return there, [self.values[part, step, layer] for step in there]

    def back(self) -> dict[str, float]:
        """Part -> the similarity of the last layer's outputs with it at the first checkpoint, the least first."""
        values = {part: self.values.get((part, self.steps[0], self.last)) for part in self.parts}
        known = {part: value for part, value in values.items() if value is not None}
        return dict(sorted(known.items(), key=lambda item: item[1]))

    def since(self, part: str) -> int | None:
        """The checkpoint from which on the last layer's outputs are similar."""
        steps, values = self.lines(part, self.last)
        below = [i for i, value in enumerate(values) if not value >= SIMILAR]
        after = below[-1] + 1 if below else 0
        return steps[after] if after < len(steps) else None


def kernel(metric: str) -> str:
    """A kind of CKA in words."""
    name, debiased = metric.removesuffix("_debiased"), metric.endswith("_debiased")
    return f"{KINDS.get(name, name)} {'without' if debiased else 'with'} bias"


def sentences(table: Table) -> list[str]:
    """Which parts change what the network computes, where, and how it depends on the epoch."""
    read, said = Read.of(table), list[str]()
    if read.parts:
        part, back = read.about.part, read.back()
        first = f"{read.about.step} {read.steps[0]}" if read.steps[0] else read.about.origin
        said.append(
            f"One {part} is put back to {first} (or a later checkpoint), and the outputs of "
            f"{words.plural(len(read.layers), 'layer')} are compared with those of the trained network on "
            f"{words.plural(read.n, 'sample')}: {read.kind}, which is 1 where they are the same up to rotation and scale, and "
            "about 0 where they have nothing in common. There are no intervals."
        )
        similar = sum(value >= SIMILAR for value in back.values())
        said.append(
            f"Put back to {first}, {similar} of {words.plural(len(back), part)} leave the outputs of {read.last}, the last layer "
            f"compared, at {SIMILAR:g} or more."
        )
        worst = [f"{name} ({words.number(value, '')})" for name, value in back.items() if value < SIMILAR][:3]
        if worst:
            said.append(f"They are least similar with {words.listed(worst)} put back.")
            said += _course(read, next(iter(back)))
    return [*said, *(f"Not for {words.listed(where)}: {reason}." for reason, where in read.missing.items())]


def listings(table: Table) -> list[Listing]:
    """One row a part: the similarity of the last layers' outputs with it put back, and since when they are similar."""
    read = Read.of(table)
    if not read.parts:
        return []
    first = f"{read.about.step} {read.steps[0]}" if read.steps[0] else read.about.origin
    heads = [
        read.about.part,
        *(f"outputs of {layer}" for layer in read.layers[-2:]),
        "least of all layers",
        "similar since",
    ]
    rows = []
    for part in read.parts:
        values = {layer: read.values.get((part, read.steps[0], layer)) for layer in read.layers}
        known = {layer: value for layer, value in values.items() if value is not None}
        least = min(known, key=lambda layer: known[layer]) if known else ""
        since = read.since(part)
        rows.append(
            [
                part,
                *(_number(values[layer]) for layer in read.layers[-2:]),
                f"{_number(known[least])} ({least})" if known else "-",
                "-" if since is None else f"{read.about.step} {since}",
            ]
        )
    caption = (
        f"How similar outputs are to those of the trained network with one {read.about.part} put back to {first}: {read.kind}, "
        f"n = {words.count(read.n)} samples. Similar since: from which {read.about.step} on the outputs of {read.last} are at "
        f"{SIMILAR:g} or more."
    )
    return [Listing(caption, heads, rows)]


READING = {
    "similarity": "Each map is of one part that was put back: columns say how far back, rows are the layers whose "
    "outputs are compared with those of the trained network. 1 is the same up to rotation and scale. "
    "Layers before the part cannot change.",
    "similarity_over_steps": "Each line is one part put back to values from earlier (left) or later (right) in training. A line "
    "that stays at 1 belongs to a part whose training does not matter for what the network computes.",
}
"""Figure -> how to read it."""


def figures(table: Table) -> "dict[str, Figure]":
    """Maps of some parts, and lines of all."""
    if not Read.of(table).parts:
        return {}
    return {"similarity": similarity_map(table), "similarity_over_steps": similarity_curves(table)}


def similarity_map(table: Table, parts: Sequence[str] | None = None) -> "Figure":
    """Where activations change: a map a part, layers from first to last by the epoch that the part is put back to.

    If `parts` does not say which, the two with which the last layer's outputs are least similar, and the two with which they
    are most similar. Light is similar. Source: chatterji2020, Fig. 9.
    """
    read = Read.of(table)
    if not read.parts:
        raise UseError("this table has no similarities")
    for part in parts or ():
        if part not in read.parts:
            raise unknown("part", part, read.parts)
    order = list(read.back())
    few = order if len(order) <= SHOWN else [*order[: SHOWN // 2], *order[-(SHOWN // 2) :]]
    chosen = list(parts) if parts else few
    names = words.labels(read.layers, 28)
    with house.style():
        height = max(2.6, min(9.0, 0.17 * len(read.layers) + 1.3))
        figure = house.figure(min(12.0, 1.9 + 2.3 * len(chosen)), height)
        places = figure.subplots(1, len(chosen), squeeze=False, sharey=True)[0]
        low = min(0.0, *read.values.values())
        picture = [_map(axes, read, part, low) for axes, part in zip(places, chosen, strict=True)][-1]
        places[0].set_yticks(range(len(read.layers)), list(names.values()), fontsize=7, parse_math=False)
        bar = figure.colorbar(picture, ax=list(places), pad=0.015, fraction=0.05, aspect=22)
        bar.set_label("CKA (1: same)")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        others = (
            f"; {len(chosen)} of {len(read.parts)}: least and most similar"
            if len(few) < len(order) and not parts
            else ""
        )
        title = f"Activations with one {read.about.part} put back ({read.kind}, n = {words.count(read.n)}{others})"
        house.headline(figure, title, 9.5)
        house.below(figure, f"{read.about.step} whose values the {read.about.part} named above is put back to")
        places[0].set_ylabel("outputs compared")
    return figure


def similarity_curves(table: Table) -> "Figure":
    """How similar the outputs of the last two layers stay, by the epoch that a part is put back to: a line a part.

    At most 24 parts, those with which outputs of the last layer are least similar somewhere.
    """
    read = Read.of(table)
    if not read.parts:
        raise UseError("this table has no similarities")
    worst = sorted(read.parts, key=lambda part: min(read.lines(part, read.last)[1], default=1.0))[:MOST]
    chosen = [part for part in read.parts if part in worst]
    layers = read.layers[-2:]
    panels = [_panel(read, chosen, layer) for layer in layers]
    low = min([0.9, *(value for panel in panels for line in panel.lines for value in line.values)])
    with house.style():
        columns = 1 if len(chosen) <= 16 else 2
        figure = house.figure(4.0 * len(layers) + 2.2 * columns, max(3.4, 0.2 * math.ceil(len(chosen) / columns) + 1.3))
        places = figure.subplots(1, len(layers), squeeze=False, sharey=True)[0]
        for axes, panel, layer in zip(places, panels, layers, strict=True):
            draw(axes, panel)
            axes.set_ylim(low - 0.03 * (1 - low), 1 + 0.03 * (1 - low))
            axes.set_yticks(ticks := scales.nice_ticks(low, 1.0), [f"{tick:g}" for tick in ticks])
            axes.set_title(f"outputs of {words.shortened(layer)}", loc="left", fontsize=9, parse_math=False)
            axes.set_xlabel(f"{read.about.step} put back to (early ones spread)")
            axes.set_ylabel("")
        places[0].set_ylabel(
            f"CKA with the trained network\n({read.kind}, n = {words.count(read.n)})", parse_math=False
        )
        heading = {"title": f"{read.about.part} put back", "title_fontsize": 8, "alignment": "left"}
        legend(places[-1], panels[-1], loc="upper left", bbox_to_anchor=(1.01, 1.0), ncols=columns, **heading)
        some = f"; {len(chosen)} of {len(read.parts)}, the least similar" if len(chosen) < len(read.parts) else ""
        lines = f"each line is the network with that one {read.about.part} put back{some}"
        house.headline(figure, f"Similarity of activations to the trained network's: {lines}", 10)
    return figure


def _course(read: Read, part: str) -> list[str]:
    """How similarity with a part put back depends on the layer and on the epoch."""
    layers = [layer for layer in read.layers if (part, read.steps[0], layer) in read.values]
    values = [read.values[part, read.steps[0], layer] for layer in layers]
    changed = [layer for layer, value in zip(layers, values, strict=True) if value < 1]
    if not changed:
        return []
    least = min(layers, key=lambda layer: read.values[part, read.steps[0], layer])
    said = (
        f"With {part} put back, outputs begin to differ at {changed[0]} "
        f"({words.number(read.values[part, read.steps[0], changed[0]], '')}) and are least similar at {least} "
        f"({words.number(min(values), '')})"
    )
    since = read.since(part)
    if since is None or len(read.steps) < 3:
        return [f"{said}."]
    steps, course = read.lines(part, read.last)
    some = [
        f"{words.number(course[i], '')} at {read.about.step} {steps[i]}"
        for i in sorted({0, len(steps) // 2, len(steps) - 1})
    ]
    return [
        f"{said}; the outputs of {read.last} are at {words.listed(some)}, and at {SIMILAR:g} or more from {since} on."
    ]


def _map(axes: "Axes", read: Read, part: str, low: float) -> "AxesImage":
    """One part's map, and what its colours are of."""
    import numpy as np

    cells = [[read.values.get((part, step, layer), math.nan) for step in read.steps] for layer in read.layers]
    colours = house.colormap(COLOURS).with_extremes(bad="#e6e6e6")
    picture = axes.imshow(np.array(cells), cmap=colours, vmin=low, vmax=1.0, aspect="auto", interpolation="nearest")
    marked = scales.tick_indices(len(read.steps), 6)
    axes.set_xticks(marked, [str(read.steps[i]) for i in marked], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(words.shortened(part, 26), loc="left", fontsize=8.5, parse_math=False)
    return picture


def _panel(read: Read, parts: Sequence[str], layer: str) -> Panel:
    """Lines of a layer's similarity."""
    lines = []
    for part in parts:
        steps, values = read.lines(part, layer)
        none = (math.nan,) * len(steps)
        lines.append(Line(part, tuple(steps), tuple(values), none, none))
    ends = [value for line in lines for value in line.values]
    scale = scales.Scale(min([0.0, *ends]), 1.0, "linear")
    return Panel(read.metric, "", tuple(lines), scale, read.about)


def _number(value: float | None) -> str:
    return "-" if value is None else words.number(value, "")
