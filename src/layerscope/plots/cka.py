"""How similar the layers of two networks are, each to each: centred kernel alignment, in words, rows of text, a map."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerscope.errors import UseError
from layerscope.plots import house, scales, words
from layerscope.plots.grid import Record, records
from layerscope.plots.similarity import COLOURS, kernel
from layerscope.plots.weights import Listing
from layerscope.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRINTED = (32, 16)
"""Rows and columns up to which the numbers are printed in the squares."""
TOLD = 6
"""Layers that sentences tell of."""
CELL = (0.19, 0.42)
"""Inches that a row and a column take, where there is room."""
LINE = 0.125
"""Inches that a label takes; of layers that are closer, some have none."""


@dataclass(frozen=True)
class Read:
    """A table of similarities: the layers of both networks in the order in which they are called, and what the two are named."""

    metric: str
    n: int
    data: str
    names: tuple[str, str]
    layers: tuple[list[str], list[str]]
    values: Mapping[tuple[str, str], float]
    missing: Mapping[str, list[str]]

    @classmethod
    def of(cls, table: Table) -> "Read":
        rows = records(table.frame)
        found = [row for row in rows if row["status"] == "ok"]
        names = _names(table)
        split = next((str(row["split"]) for row in rows), "")
        return cls(
            str(rows[0]["metric"]) if rows else "",
            max((row["n"] for row in found), default=0),
            f"{words.data_name(table.provenance)} {split}".strip(),
            names,
            (list(dict.fromkeys(row["layer"] for row in found)), list(dict.fromkeys(row["layer_b"] for row in found))),
            {(row["layer"], row["layer_b"]): row["value"] for row in found},
            _missing([row for row in rows if row["status"] != "ok"], names),
        )

    @property
    def samples(self) -> str:
        """What the numbers rest on."""
        return f"{words.count(self.n)} {f'{self.data} samples'.strip()}"

    @property
    def about(self) -> str:
        """The kernel, and what the numbers rest on."""
        return f"{kernel(self.metric)}, n = {self.samples}"

    @property
    def itself(self) -> bool:
        """Whether a network is compared with itself: a layer is then not told to be like itself."""
        return self.names[0] == self.names[1]

    @property
    def nearest_one(self) -> str:
        """What the most similar layer is one of."""
        return "other one" if self.itself else f"one of {self.names[1]}"

    def turned(self) -> "Read":
        """The same seen from the other network."""
        values = {(b, a): value for (a, b), value in self.values.items()}
        (a, b), (ours, theirs) = self.names, self.layers
        return Read(self.metric, self.n, self.data, (b, a), (theirs, ours), values, self.missing)

    def nearest(self, layer: str) -> list[str]:
        """The layers of the other network, that which is most similar to a layer first."""
        there = [
            other for other in self.layers[1] if (layer, other) in self.values and not (self.itself and other == layer)
        ]
        return sorted(there, key=lambda other: -self.values[layer, other])

    def pair(self, layer: str) -> str:
        """A layer, the most similar one of the other network, and how similar it is."""
        return " → ".join([layer, *(f"{other} ({self.number(layer, other)})" for other in self.nearest(layer)[:1])])

    def number(self, layer: str, other: str) -> str:
        return words.number(self.values[layer, other], "")


def sentences(table: Table) -> list[str]:
    """Which layer of the other network each layer is most similar to, and which is like none."""
    read = Read.of(table)
    missing = [f"Not for {words.listed(where)}: {reason}." for reason, where in read.missing.items()]
    if not read.values:
        return missing
    return [_compared(read), *_nearest(read), *missing]


def listings(table: Table) -> list[Listing]:
    """Of each network one row a layer: the layers of the other that are most similar to it."""
    read = Read.of(table)
    return [_listing(each) for each in ([read] if read.itself else [read, read.turned()])] if read.values else []


READING = {
    "cka": "Each square compares the outputs of a layer of the network at the side with those of a layer of the network "
    "below, both in the order in which they are called. Light is similar: 1 is the same up to rotation and scale. A frame marks "
    "the most similar layer of each row. Where layers compute alike in the same order, the diagonal is light.",
}
"""Figure -> how to read it."""


def figures(table: Table) -> "dict[str, Figure]":
    """The map of all pairs of layers."""
    return {"cka": cka_map(table)} if Read.of(table).values else {}


def cka_map(table: Table) -> "Figure":
    """How similar the layers of one network (rows) are to those of another (columns), in the order in which they are called.

    Light is similar; the most similar square of each row has a frame, and squares without a number are grey.
    """
    read = Read.of(table)
    if not read.values:
        raise UseError("this table has no similarities")
    rows, columns = (list(words.labels(layers, 28).values()) for layers in read.layers)
    width = min(11.0, max(5.2, 2.6 + CELL[1] * len(columns)))
    height = min(10.0, 1.9 + max(1.2, CELL[0] * len(rows)) + 0.055 * max(map(len, columns)))
    with house.style():
        figure = house.figure(width, height)
        axes = figure.add_subplot()
        _squares(figure, axes, read)
        wide, high = (width - 2.6) / len(columns), (height - 1.9) / len(rows)
        flat = 0.075 * max(map(len, columns)) < wide
        for axis, names, size in ((axes.xaxis, columns, wide), (axes.yaxis, rows, high)):
            marked = scales.tick_indices(len(names), int(size * len(names) / LINE))
            axis.set_ticks(marked, [names[i] for i in marked], fontsize=7.5, parse_math=False)
        axes.tick_params(axis="x", rotation=0 if flat else 90)
        for setter, name, size in ((axes.set_ylabel, read.names[0], height), (axes.set_xlabel, read.names[1], width)):
            setter(f"layers of {words.shortened(name, int(9 * (size - 1.9)))}", parse_math=False)
        house.headline(figure, f"Layers of {read.names[0]} (side) and of {read.names[1]} (below): {read.about}", 9.5)
    return figure


def _squares(figure: "Figure", axes: "Axes", read: Read) -> None:
    """The colours, the numbers where there is room, and a frame around the most similar square of each row."""
    import numpy as np
    from matplotlib.patches import Rectangle

    rows, columns = read.layers
    cells = np.array([[read.values.get((a, b), math.nan) for b in columns] for a in rows])
    low = min(0.0, *read.values.values())
    colours = house.colormap(COLOURS).with_extremes(bad="#e6e6e6")
    picture = axes.imshow(cells, cmap=colours, vmin=low, vmax=1.0, aspect="auto", interpolation="nearest")
    bar = figure.colorbar(picture, ax=axes, pad=0.015, fraction=0.05, aspect=22)
    bar.set_label("CKA (1: same)")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    best = {a: read.nearest(a)[:1] for a in rows}
    printed = len(rows) <= PRINTED[0] and len(columns) <= PRINTED[1]
    for (a, b), value in read.values.items():
        x, y = columns.index(b), rows.index(a)
        ink = scales.ink(scales.colour((value - low) / (1 - low), COLOURS))
        if printed:
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)
        if b in best[a]:
            axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, lw=1.1, ec=ink))


def _compared(read: Read) -> str:
    """What was compared, on what, and what the numbers mean."""
    (a, b), (ours, theirs) = read.names, (words.plural(len(layers), "layer") for layers in read.layers)
    return (
        f"The outputs of {ours} of {a} are compared with those of {theirs} of {'itself' if read.itself else b} on "
        f"{read.samples}: {kernel(read.metric)}, which is 1 where they are the same up to rotation and scale, and about 0 where "
        "they have nothing in common. There are no intervals, so that close values cannot be told apart."
    )


def _nearest(read: Read) -> list[str]:
    """The most similar layers, whether they are those of the same name, and the layer that is like none."""
    layers = [layer for layer in read.layers[0] if read.nearest(layer)]
    if not layers:
        return []
    said = [
        f"Each layer of {read.names[0]}, and the most similar {read.nearest_one}: {'; '.join(_some(map(read.pair, layers)))}."
    ]
    said += [] if read.itself else _namesakes(read)
    if len(layers) > 1:
        least = min(layers, key=lambda layer: read.values[layer, read.nearest(layer)[0]])
        nearest = read.nearest(least)[0]
        most = f"at most {read.number(least, nearest)}, with {nearest}"
        said.append(f"The layer that is least like any {read.nearest_one} is {least}: {most}.")
    return said


def _some(pairs: Iterable[str]) -> list[str]:
    """The first of what has a row of its own in the tables."""
    found = list(pairs)
    return found if len(found) <= TOLD else [*found[: TOLD - 1], f"{len(found) - TOLD + 1} more are in the table"]


def _namesakes(read: Read) -> list[str]:
    """Whether layers that have the same name in both networks are the most similar ones."""
    both = [layer for layer in read.layers[0] if layer in read.layers[1]]
    if len(both) < 2:
        return []
    alike = sum(read.nearest(layer)[0] == layer for layer in both)
    theirs = "is most similar to its namesake" if alike == 1 else "are most similar to their namesakes"
    return [f"Of {len(both)} layers that both have by name, {alike} {theirs}."]


def _listing(read: Read) -> Listing:
    """One row a layer of the first network."""
    rows = []
    for layer in read.layers[0]:
        nearest = read.nearest(layer)[:2]
        cells = [text for other in nearest for text in (other, read.number(layer, other))]
        rows.append([layer, *cells, *["-"] * (4 - len(cells))])
    caption = (
        f"Each layer of {read.names[0]}, in the order in which they are called, and the most similar {read.nearest_one}: "
        f"{read.about}."
    )
    return Listing(caption, ["layer", "most similar", "CKA", "next", "CKA of next"], rows)


def _names(table: Table) -> tuple[str, str]:
    """What the two networks are called; with the checkpoint, where it is not the trained one."""
    runs = [str(network["run"]) for network in table.provenance.get("networks", ())]
    if not runs:
        return "the first network", "the other network"
    steps = table.provenance["steps"]
    trained = " as trained" if runs[0] == runs[1] and steps[0] != steps[1] else ""
    first, other = (f"{run} at {step}" if step else run + trained for run, step in zip(runs, steps, strict=True))
    return first, other


def _missing(rows: Sequence[Record], names: tuple[str, str]) -> dict[str, list[str]]:
    """Reason -> the layers that it is of, or the pairs."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        column, _, why = row["reason"].partition(": ")
        where = {"layer": f"{row['layer']} of {names[0]}", "layer_b": f"{row['layer_b']} of {names[1]}"}
        pair = f"{row['layer']} and {row['layer_b']}"
        found.setdefault(why if column in where else row["reason"], {})[where.get(column, pair)] = None
    return {reason: list(places) for reason, places in found.items()}
