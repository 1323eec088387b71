"""The map for a terminal: numbers first, colour only where there is some."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerscope.plots import scales, words
from layerscope.plots.grid import RANDOM, WHOLE, Column, Grid, changed, layer_grid, unmodified
from layerscope.table import Table

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table as RichTable
    from rich.text import Text

_CELL = 7
"""Characters a column of numbers takes, with its spaces."""
_VERDICTS = 24
"""Characters that the two columns of verdicts take."""
_NARROW = 64
"""Characters of a line below which the verdicts stand under the map."""


def terminal_map(table: Table, metric: str = "error", split: str = "test") -> "TerminalMap":
    """Which layers matter, for a terminal of any width: print it with rich.

    One row a Part and the whole network; numbers of the re-randomised Part (mean over draws), the start, as
    many epochs as fit, and the final one; then the two verdicts in words. Reads the same without colour.
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
        names = min(24, max(len(name) for name in self.grid.rows))
        beside = self.verdicts is not None and options.max_width >= _NARROW
        room = options.max_width - names - 5 - (_VERDICTS if beside else 0)
        yield self._drawn(shown_columns(self.grid, max(3, room // _CELL)), names, beside)
        yield from self._notes(beside)

    def _drawn(self, columns: list[Column], names: int, beside: bool) -> "RichTable":
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        drawn = RichTable(
            title=Text(self._title()), title_justify="left", box=box.SIMPLE, padding=(0, 1), pad_edge=False
        )
        drawn.add_column("layer\nepoch", no_wrap=True, max_width=names)
        for column in columns:
            drawn.add_column(self._header(column), justify="right", no_wrap=True)
        if beside:
            drawn.add_column("verdict:\nto start", no_wrap=True)
            drawn.add_column("verdict:\nrandom", no_wrap=True)
        for name in self.grid.rows:
            cells = [self._cell(name, column) for column in columns]
            verdicts = [self._verdict(name, c) for c in (0, RANDOM)] if beside else []
            if name == WHOLE:
                drawn.add_section()
            drawn.add_row(Text(words.shortened(name, names)), *cells, *verdicts)
        return drawn

    def _title(self) -> str:
        return f"{words.title(self.grid)} with one layer changed, {self.grid.unit}"

    def _header(self, column: Column) -> str:
        if column is RANDOM:
            return "re-ran-\ndomised"
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

    def _notes(self, beside: bool) -> list["Text"]:
        from rich.text import Text

        whole = unmodified(self.table, self.grid.metric, self.grid.split)
        data = words.data_name(self.table.provenance)
        n = words.count(self.grid.rests_on(False))
        notes = [f"Data: {data} {self.grid.split}, n = {n}.".replace("  ", " ")]
        if not whole.missing:
            within = f" ({words.level(whole)} interval {words.interval(whole, '%')})" if whole.has_interval else ""
            notes.append(f"Unmodified: {words.number(whole.value, self.grid.unit)} {self.grid.unit}{within}.")
        if self.grid.has_random:
            notes.append(f"Re-randomised: mean of {words.plural(self.grid.rests_on(True), 'draw')}.")
        reasons = {k: v for k, v in self.grid.reasons().items() if v != [f"{WHOLE}, re-randomised"]}
        notes += [f"-: {words.listed(places, 3)}: {reason}." for reason, places in reasons.items()]
        notes += [] if beside else self._verdict_notes()
        return [Text(note) for note in notes]

    def _verdict_notes(self) -> list[str]:
        names = [name for name in self.grid.rows if name != WHOLE] if self.verdicts else []
        return [f"{n}: start {self._verdict(n, 0)}, re-randomised {self._verdict(n, RANDOM)}." for n in names]


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
