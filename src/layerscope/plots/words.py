"""Numbers and names as people read them; the same in pictures, terminal and report."""

import math
import re
from collections.abc import Iterable, Sequence

from layerscope.plots import names
from layerscope.plots.about import About
from layerscope.plots.grid import Cell, Grid, unmodified
from layerscope.table import Table


def number(value: float, unit: str) -> str:
    """A number: two decimals for per cent, three significant digits otherwise."""
    if not math.isfinite(value):
        return "none"
    if unit.startswith(("%", "percentage")):
        return f"{round(value, 2) + 0.0:.2f}"
    if 1000 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:#.3g}" if 1 <= abs(value) < 99.95 else f"{value + 0.0:.3g}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit."""
    return f"{number(value, unit)} {unit}".rstrip()


def short(value: float, unit: str) -> str:
    """A number for a small cell: five characters, six with a sign."""
    if not math.isfinite(value):
        return "–"
    if unit.startswith(("%", "percentage")):
        return f"{round(value, 1) + 0.0:.1f}" if abs(value) < 99.95 else f"{value:.0f}"
    if abs(value) >= 99_999.5 or 0 < abs(value) < 0.00095:
        mantissa, power = f"{value:.{int(abs(value) < 9.95e9)}e}".split("e")
        return f"{mantissa}e{int(power)}"
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:#.3g}" if abs(value) >= 1 else f"{value + 0.0:.2g}"


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
    name = names.title(grid.metric)
    return f"{name} on {grid.split} data" if grid.split else name


def about_scale(grid: Grid, what: str = "scale") -> str:
    """How the colours follow the numbers, in brackets; empty where there is nothing to say."""
    scale = grid.scale
    darkest = f"darkest: {number(scale.low if scale.flipped else scale.high, grid.unit)} or "
    said = [f"{scale.words} {what}"] if scale.words else []
    said += [darkest + ("less" if scale.flipped else "more")] if scale.clipped else []
    return f"({'; '.join(said)})" if said else ""


def sample_count(table: Table, grid: Grid) -> int:
    """How many samples (or sequences) a map's numbers rest on; without any put back, what the unmodified one rests on."""
    return grid.rests_on(False) or unmodified(table, grid.metric, grid.split).n


def samples(table: Table, grid: Grid) -> str:
    """`sample_count` in words: from the fewest to the most, where cells rest on different numbers."""
    most = sample_count(table, grid)
    return count(most) if grid.fewest in (0, most) else f"{count(grid.fewest)} to {count(most)}"


def no_chance(about: About) -> str:
    """Why there can be no verdicts: nobody knows what a guess would score."""
    return about.why_no_chance or f"the {about.noun} of a guess is not known"


def data_name(provenance: object) -> str:
    """The name of the data set a table rests on; empty if it does not say."""
    data = provenance.get("data") if isinstance(provenance, dict) else None
    return str(data.get("name", "")) if isinstance(data, dict) else ""


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names as an English list; a long one is cut and says so."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def shortened(name: str, most: int = 36, head: int | None = None) -> str:
    """A name that fits; a long one loses its middle, since names differ at their ends."""
    if len(name) <= most:
        return name
    head = most // 3 if head is None else head
    return f"{name[:head]}…{name[head - most + 1 :]}"


def labels(parts: Sequence[str], most: int = 36, limit: int = 80) -> dict[str, str]:
    """Names that fit, by name, and are still told apart: they keep less of their beginnings, or are longer, if need be.

    None gets longer than `limit`.
    """
    for length in range(most, max(most, limit) + 1, 4):
        for head in (length // 3, length // 6, 0):
            found = {name: shortened(name, length, head) for name in parts}
            if len(set(found.values())) == len(found):
                return found
    return {name: shortened(name, limit) for name in parts}


def natural(parts: Iterable[str]) -> list[str]:
    """Names sorted as people count: h.2 before h.10."""
    padded = re.compile(r"\d+")
    return sorted(parts, key=lambda name: padded.sub(lambda digits: digits[0].zfill(12), name))


def some(lines: Iterable[str], most: int) -> list[str]:
    """The first lines, and how many more there are."""
    lines = list(lines)
    return lines if len(lines) <= most else [*lines[: most - 1], f"and {len(lines) - most + 1} more reasons"]
