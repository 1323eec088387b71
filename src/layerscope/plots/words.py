"""Numbers and names as people read them; the same in pictures, terminal and report."""

import math
from collections.abc import Sequence

from layerscope.plots.grid import TITLES, Cell, Grid


def number(value: float, unit: str) -> str:
    """A number: two decimals for per cent, three significant digits otherwise."""
    if not math.isfinite(value):
        return "none"
    if unit.startswith(("%", "percentage")):
        return f"{round(value, 2) + 0.0:.2f}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value + 0.0:.3g}"


def short(value: float, unit: str) -> str:
    """A number for a small cell."""
    if not math.isfinite(value):
        return "–"
    if unit.startswith(("%", "percentage")):
        return f"{round(value, 1) + 0.0:.1f}" if abs(value) < 99.95 else f"{value:.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value + 0.0:.2g}"


def interval(cell: Cell, unit: str) -> str:
    """The ends of an interval; empty where there is none."""
    return f"{number(cell.low, unit)} to {number(cell.high, unit)}" if cell.has_interval else ""


def level(cell: Cell) -> str:
    """A confidence level in per cent."""
    return f"{100 * cell.level:g} %"


def count(n: int) -> str:
    """A count, with commas between thousands."""
    return f"{n:,}"


def plural(n: int, noun: str) -> str:
    """A count and its noun."""
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"


def title(grid: Grid) -> str:
    """What a map shows, in a few words."""
    name = TITLES.get(grid.metric, grid.metric)
    return f"{name} on {grid.split} data" if grid.split else name


def data_name(provenance: object) -> str:
    """The name of the data set a table rests on; empty if it does not say."""
    data = provenance.get("data") if isinstance(provenance, dict) else None
    return str(data.get("name", "")) if isinstance(data, dict) else ""


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names as an English list; a long one is cut and says so."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def shortened(name: str, most: int = 36) -> str:
    """A name that fits; a long one loses its middle, since names differ at their ends."""
    if len(name) <= most:
        return name
    head = most // 3
    return f"{name[:head]}…{name[head - most + 1 :]}"
