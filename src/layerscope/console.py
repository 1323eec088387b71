"""What a terminal shows: progress with time left, and results as lines or JSON."""

import json
import math
import sys
import time
from itertools import takewhile
from typing import Any

from layerscope.runtime import Progress

EVERY = 5.0
"""Seconds between two plain lines."""


def progress() -> Progress:
    """A progress display on stderr, so that results on stdout can be piped."""
    return _Bars() if sys.stderr.isatty() else _Lines()


class _Lines:
    """A line at the start, every few seconds, and at the end of each task."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, int]] = {}
        self._told = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        began, first = self._began.setdefault(what, (now, done))
        if done < total and now - self._told < EVERY:
            return
        self._told = now
        rate = (now - began) / (done - first) if done > first else 0.0
        left = f", about {_duration(rate * (total - done))} left" if rate and done < total else ""
        print(f"{what}: {done} of {total}{left}", file=sys.stderr, flush=True)
        if done == total:
            del self._began[what]


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
