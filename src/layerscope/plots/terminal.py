"""The map for a terminal: numbers first, colour only where there is some."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerscope.plots import names, scales, words
from layerscope.plots.about import warnings
from layerscope.plots.grid import RANDOM, WHOLE, Column, Grid, changed, layer_grid, unmodified
from layerscope.table import Table

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table as RichTable
    from rich.text import Text

_CELL = 7
"""Characters a column of numbers takes, with its spaces."""
_VERDICT = 12
"""Characters that a column of verdicts takes."""
_NAMES = 24
"""Characters that names get, and more where there is room, or where that is needed to tell them apart."""
_NARROW = 64
"""Characters of a line below which the verdicts stand under the map."""


def terminal_map(table: Table, metric: str | None = None, split: str = "test") -> "TerminalMap":
    """Which layers matter, for a terminal of any width: print it with rich.

    One row a Part and the whole network; numbers (of the deciding metric) of the re-randomised Part (mean over draws),
    the start, as many epochs as fit, and the final one; then the verdicts in words. Reads the same without colour.
    """
    return TerminalMap(table, layer_grid(table, metric, split), changed(table))


@dataclass(frozen=True)
class TerminalMap:
    """A map that rich prints; the epochs it shows depend on the width."""

    table: Table
    grid: Grid
    verdicts: Grid | None

    def __str__(self) -> str:
        """The map as plain text of 100 columns, for print() and logs."""
        import io

        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=100, color_system=None).print(self)
        return text.getvalue()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from markupsafe import escape

        return f"<pre>{escape(str(self))}</pre>"

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        beside = self._judged if options.max_width >= _NARROW else []
        room = options.max_width - 5 - _VERDICT * len(beside)
        cell = max([_CELL, *(len(str(step)) + 2 for step in self.grid.steps)])
        most = max(_NAMES, room - cell * len(self.grid.columns))
        labels = words.labels(self.grid.rows, most, max(most, room - 4 * cell))
        width = max(len(label) for label in labels.values())
        yield self._drawn(shown_columns(self.grid, max(3, (room - width) // cell)), labels, beside)
        yield from self._notes(beside)

    @property
    def _judged(self) -> list[Column]:
        """The columns that have verdicts: the start, and re-randomised; none where chance is not known."""
        if self.verdicts is None or not self.grid.about.knows_chance:
            return []
        there: list[Column] = [0, RANDOM]
        return [column for column in there if column in self.verdicts.columns]

    @property
    def _back(self) -> str:
        return "pretrained" if self.grid.about.pretrained else "to start"

    def _drawn(self, columns: list[Column], labels: dict[str, str], beside: list[Column]) -> "RichTable":
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        drawn = RichTable(
            title=Text(self._title()), title_justify="left", box=box.SIMPLE, padding=(0, 1), pad_edge=False
        )
        drawn.add_column(f"{self.grid.about.part}\n{self.grid.about.step if self.grid.steps else ''}", no_wrap=True)
        for column in columns:
            drawn.add_column(self._header(column), justify="right", no_wrap=True)
        for column in beside:
            drawn.add_column(f"verdict:\n{'random' if column is RANDOM else self._back}", no_wrap=True)
        for name in self.grid.rows:
            cells = [self._cell(name, column) for column in columns]
            if name == WHOLE:
                drawn.add_section()
            drawn.add_row(Text(labels[name]), *cells, *(self._verdict(name, column) for column in beside))
        return drawn

    def _title(self) -> str:
        shown = f"{words.title(self.grid)} with one {self.grid.about.part} changed"
        return f"{shown}, {self.grid.unit}" if self.grid.unit else shown

    def _header(self, column: Column) -> str:
        if column is RANDOM:
            return self.grid.about.random_head
        if column == 0 and self.grid.about.pretrained:
            return "pre-\ntrained"
        name = "start" if column == 0 else "final" if column == self.grid.steps[-1] else ""
        return f"{name}\n{column}"

    def _cell(self, name: str, column: Column) -> "Text":
        from rich.text import Text

        cell = self.grid.at(name, column)
        if cell.missing:
            return Text("-")
        background = self.grid.shade(cell)
        return Text(words.short(cell.value, self.grid.unit), style=f"{scales.ink(background)} on {background}")

    def _verdict(self, name: str, column: Column) -> str:
        cell = self.verdicts.at(name, column) if self.verdicts else None
        return cell.verdict or "-" if cell and name != WHOLE else ""

    def _notes(self, beside: list[Column]) -> list["Text"]:
        from rich.text import Text

        notes = [f"Warning: {warning}" for warning in warnings(self.table)]
        notes += [self._data(), *self._unmodified()]
        if draws := self.grid.rests_on(True):
            notes.append(
                f"{self.grid.about.randomised.capitalize()}: mean of {words.plural(draws, 'draw')}{self._source}."
            )
        if self.verdicts is not None and not self.grid.about.knows_chance:
            notes.append(f"No verdicts: {words.no_chance(self.grid.about)}.")
        reasons = {k: v for k, v in self.grid.reasons().items() if v != [f"{WHOLE}, {self.grid.about.randomised}"]}
        notes += words.some([f"-: {words.listed(places, 3)}: {reason}." for reason, places in reasons.items()], 6)
        notes += [] if beside else self._verdict_notes()
        return [Text(note) for note in notes]

    @property
    def _source(self) -> str:
        return ", from laws with the moments of the trained values" if self.grid.about.redraw == "moments" else ""

    def _data(self) -> str:
        data, n = words.data_name(self.table.provenance), words.samples(self.table, self.grid)
        counted = names.counted(self.grid.metric)
        return f"Data: {data} {self.grid.split}, n = {n}{' sequences' if counted != 'sample' else ''}.".replace(
            "  ", " "
        )

    def _unmodified(self) -> list[str]:
        whole, unit = unmodified(self.table, self.grid.metric, self.grid.split), self.grid.unit
        if whole.missing:
            return []
        within = f" ({words.level(whole)} interval {words.interval(whole, unit)})" if whole.has_interval else ""
        return [f"Unmodified: {words.quantity(whole.value, unit)}{within}."]

    def _verdict_notes(self) -> list[str]:
        said = {0: self.grid.about.start, RANDOM: self.grid.about.randomised}
        return [
            f"{name}: {', '.join(f'{said[c]} {self._verdict(name, c)}' for c in self._judged)}."
            for name in (self.grid.parts if self._judged else ())
        ]


def shown_columns(grid: Grid, room: int) -> list[Column]:
    """The columns that fit: re-randomised, first and last epoch, and others, more of the early ones."""
    random: list[Column] = [RANDOM] if grid.has_random else []
    steps, room = grid.steps, room - len(random)
    if len(steps) <= room:
        return [*random, *steps]
    last = scales.early(steps[-1])
    wanted = [last * i / (room - 1) for i in range(room)]
    nearest = {min(steps, key=lambda step: abs(scales.early(step) - place)) for place in wanted}
    return [*random, *sorted(nearest | {steps[0], steps[-1]})]
