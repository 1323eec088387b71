"""What a terminal shows: progress with time left, and results as lines or JSON."""

import json
import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from layerscope.runtime import Progress

if TYPE_CHECKING:
    from layerscope.plots.weights import Listing
    from layerscope.table import Table

EVERY = 5.0
"""Seconds between two plain lines."""
RECENT = 12
"""Lines, a minute or more, that the time left is reckoned from."""
WIDEST = 100_000
"""Characters that no table needs."""
MOST = 10
"""Differences that are listed."""


def progress() -> Progress:
    """A progress display on stderr, so that results on stdout can be piped."""
    return _Bars() if sys.stderr.isatty() else _Lines()


class _Lines:
    """A line at the start, every few seconds, and at the end of each task."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[tuple[float, int]]] = {}
        self._told = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        recent = self._recent.setdefault(what, deque([(now, done)], maxlen=RECENT))
        if done < total and now - self._told < EVERY:
            return
        self._told = now
        began, first = recent[
            0
        ]  # not the first of all: what comes later may be slower, wide networks after narrow ones
        recent.append((now, done))
        rate = (now - began) / (done - first) if done > first else 0.0
        left = f", about {_duration(rate * (total - done))} left" if rate and done < total else ""
        print(f"{what}: {done} of {total}{left}", file=sys.stderr, flush=True)
        if done == total:
            del self._recent[what]


class _Bars:
    """One bar a task, with rate and time left; a bar ends with its task."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._task: Any = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bars is None:
            self._bars, self._task = _bars(), None
            self._bars.start()
        if self._task is None:
            self._task = self._bars.add_task(what, total=total)
        self._bars.update(self._task, completed=done)
        if done == total:
            self._bars.stop()
            self._bars = None


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def say(found: object, json: bool) -> int:
    """Print a result: JSON for machines, a line each for people. NaN is null: JSON has none."""
    print(plain_json(found) if json else lines(found))
    return 0


def warn(table: "Table") -> None:
    """What has to be known before the numbers are believed, on stderr."""
    for warning in (*table.provenance.get("warnings", ()), *table.provenance.get("data", {}).get("warnings", ())):
        print(f"warning: {warning}", file=sys.stderr)


def plain_json(value: Any) -> str:
    """A result as JSON; what is not finite becomes null, because JSON has no NaN."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def lines(value: Any, indent: str = "") -> str:
    """A result as one line a number, in units that people read."""
    if not isinstance(value, dict):
        return f"{indent}{value}"
    return "\n".join(
        f"{indent}{name.replace('_', ' ')}:\n{lines(inner, indent + '  ')}"
        if isinstance(inner, dict)
        else f"{indent}{_named(name, inner)}"
        for name, inner in value.items()
    )


def _named(name: str, value: Any) -> str:
    if name == "seconds":
        return f"about {_duration(value)}"
    if name.endswith("_bytes"):
        return f"{name.removesuffix('_bytes')}: about {value / 1e6:,.0f} MB"
    return f"{name.replace('_', ' ')}: {value:,}" if isinstance(value, int) else f"{name.replace('_', ' ')}: {value}"


def print_table(drawn: Any) -> None:
    """Print tables: into a pipe, which has no width, as wide as they are, so that no cell is broken; on a terminal at least as
    wide as their words and numbers."""
    from rich.console import Console

    there, wide = Console(), Console(width=WIDEST)
    needed = wide.measure(drawn)
    Console(width=max(there.width, needed.minimum if there.is_terminal else needed.maximum)).print(drawn)


def parts_table(found: dict[str, Any]) -> Any:
    """A Partition as a table, and below it what is left out, with the reasons."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("Part", "module", "tensors", box=None, pad_edge=False)
    for heading in ("parameters", "buffers", "share"):
        table.add_column(heading, justify="right")
    for part in found["parts"]:
        buffers = f"{part['buffers']:,}" if part["buffers"] else ""
        cells = [part["part"], part["modules"], ", ".join(_without_common(part["tensors"])), f"{part['parameters']:,}"]
        table.add_row(*map(Text, [*cells, buffers, f"{100 * part['share']:.1f} %"]))
    table.add_row("", "", "", f"{found['parameters']:,}")
    reasons: dict[str, list[str]] = {}
    for entry in found["left_out"]:
        reasons.setdefault(entry["reason"], []).append(f"  {entry['tensor']} ({entry['size']:,})")
    left = [line for reason, tensors in reasons.items() for line in (f"left out, {reason}:", *tensors)]
    return Group(table, Text("\n".join(left or ["left out: nothing"])))


def listings_tables(found: "Sequence[Listing]") -> Any:
    """Tables of text, each below its caption."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    shown: list[Any] = []
    for listing in found:
        drawn = RichTable(title=Text(listing.caption), title_justify="left", box=box.SIMPLE, pad_edge=False)
        for number, head in enumerate(listing.heads):  # what does not fit goes on in the next line: nothing is cut
            drawn.add_column(head, justify="right" if number else "left", overflow="fold")
        for row in listing.rows:
            drawn.add_row(*map(Text, row))
        shown.append(drawn)
    return Group(*shown)


def bench_table(found: dict[str, Any]) -> Any:
    """Two engines beside each other, what that means, and what they had to do."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("", box=None, pad_edge=False)
    for name in found["engines"]:
        table.add_column(name, justify="right")
    for what, shown in {
        "seconds": lambda one: "{median:.2f} ({low:.2f} to {high:.2f})".format(**one["seconds"]),
        "FLOPs executed": lambda one: _percent(one["share"]),
        "  after the first batch": lambda one: _percent(one["further_share"]),
        "peak memory": lambda one: (
            "not known here" if one["peak_bytes"] is None else f"{one['peak_bytes'] / 1e6:,.0f} MB"
        ),
        "whole map, about": lambda one: _duration(max(1, one["map_seconds"])),
    }.items():
        table.add_row(*map(Text, [what, *map(shown, found["engines"].values())]))
    return Group(
        Text(_tried(found)), table, Text("\n".join(_notes(found))), Text(f"{found['conclusion']}.", style="bold")
    )


def _tried(found: dict[str, Any]) -> str:
    """What both engines were given, of what."""
    whole, threads = found["map"], found["threads"]
    given = f"{found['variants']} of the map's {whole['variants']:,} variants, on {found['samples']:,} test samples"
    of = f" of its {sum(whole['samples'].values()):,} samples"
    passes = f", {found['passes']} times, for there are few batches" if found["passes"] > 1 else ""
    where = f"{found['device']}, {threads} thread{'' if threads == 1 else 's'}"
    return f"{given}{of}{passes}; {found['repeats']} repeats; {where}"


def _notes(found: dict[str, Any]) -> list[str]:
    """What the numbers mean, and what is odd about them."""
    whole, each = found["map"], found["map"]["statistics_seconds"]
    said = ["same: yes, every row is equal bit for bit" if found["same"] else "same: no"]
    for row in found["different"][:MOST]:
        place = f"{row['part']}, {row['perturbation']} ({row['variant']})"
        said.append(f"  {place}: {row['metric']} {row['reference']!r}, with {found['engine']} {row[found['engine']]!r}")
    if more := len(found["different"][MOST:]):
        said.append(f"  and {more} more rows")
    if found["bound"] is None:
        said.append("bound: not known, for this network has no products that are counted")
    else:
        said.append(f"bound: {found['bound']:.2f}x, were only that computed which comes from a change")
    said += [f"{count} went to the reference engine: {reason}" for reason, count in found["elsewhere"].items()]
    said.append(
        f"not tried: {whole['unchanged']} of the map: the network as it is, and Parts put back to the last step"
    )
    if each:
        said.append(
            f"batch norm's statistics: {each:.2f} s for each variant with either engine, counted in the whole map"
        )
    if found["device"] == "cpu":
        said.append(
            "memory: of this process beyond before, with what its allocator holds back and pages of mapped files"
        )
    return said


def sweep_table(rows: list[dict[str, Any]], grid: list[str]) -> Any:
    """The networks of a sweep, or the means over their seeds: what varies, and what came of it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    varying = [name for name in grid if name in rows[0]]
    seen = {key for row in rows for key in row}
    shown = [key for key in _MEASURED if key in seen]
    table = Table(box=box.SIMPLE, pad_edge=False)
    for head in (*varying, *(["runs"] if any(row["n"] > 1 for row in rows) else []), "trained"):
        table.add_column(head, justify="right", no_wrap=True)
    for key in shown:
        table.add_column(_MEASURED[key][0], justify="right", no_wrap=True)
    for row in rows:
        counts = [f"{row['n']}"] if any(row["n"] > 1 for row in rows) else []
        cells = [_short(row[name]) for name in varying] + counts + [f"{row['trained']:g}"]
        cells += [_measured(row, key) for key in shown]
        table.add_row(*map(Text, [*cells, *([f"{row['diverged']} diverged"] if row["diverged"] else [])]))
    return table


_MEASURED = {
    "train_error": ("train error, %", 100.0),
    "validation_error": ("validation error, %", 100.0),
    "test_error": ("test error, %", 100.0),
    "test_cross_entropy": ("test loss", 1.0),
}
"""What is shown of a network -> heading and factor."""


def _measured(row: dict[str, Any], key: str) -> str:
    """A number, and half the width of its interval where there is one."""
    _, factor = _MEASURED[key]
    if key not in row:
        return ""
    half = f" ± {factor * (row[f'{key}_high'] - row[key]):.2g}" if f"{key}_high" in row else ""
    return f"{factor * row[key]:.3g}{half}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _percent(share: float | None) -> str:
    return "not known" if share is None else f"{100 * share:.0f} %"


def models_table(found: list[dict[str, Any]]) -> Any:
    """The architectures: what each is, its options, and the parameters of the usual ones."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    shown: list[Any] = []
    for family in found:
        shown.append(Text(f"{family['form']}  {family['what']}", style="bold"))
        options = "  ".join(f"{name}={values}" for name, values in family["options"].items())
        shown.append(Padding(Text(f"options: {options}" if options else "no options"), (0, 0, 0, 2)))
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, counts in family["parameters"].items():
            sizes = [f"{count:,} on {data}" for data, count in counts.items() if count is not None]
            table.add_row(*map(Text, [name, "parameters: " + ", ".join(sizes)]))
        shown.append(Padding(table, (0, 0, 1, 2)))
    shown.append(Text("Write options after a ?, quoted: --model 'fcn-3x256?norm=batch&width=0.5'"))
    return Group(*shown)


def _without_common(names: list[str]) -> list[str]:
    """Dotted names without the path that they have in common."""
    paths = [name.split(".")[:-1] for name in names]
    same = takewhile(lambda words: len(set(words)) == 1, zip(*paths, strict=False))
    prefix = "".join(f"{words[0]}." for words in same)
    return [name.removeprefix(prefix) for name in names]
