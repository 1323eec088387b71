"""Colours, marks and ticks that every picture shares. Plain values, no drawing."""

import math
from collections.abc import Sequence

ERROR = ("ffffd9", "edf8b1", "c7e9b4", "7fcdbb", "41b6c4", "1d91c0", "225ea8", "253494", "081d58")
"""Colours of errors and losses: ColorBrewer's YlGnBu, light for none; safe without colour vision."""
DISTANCE = ("ffffe5", "fff7bc", "fee391", "fec44f", "fe9929", "ec7014", "cc4c02", "993404", "662506")
"""Colours of distances: ColorBrewer's YlOrBr, so that the kinds of map are not mistaken for each other."""

LINES = ("0072b2", "b34a00", "007a5a", "a83279", "444444", "8a6d00", "5b4fc9", "2b7fa8")
"""Colours of lines: Okabe and Ito's, darkened to a contrast of 3 or more on white."""
DASHES = ("", "7 3", "2 2", "9 3 2 3")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_STRIDES = (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000, 10000)


def stops(metric: str) -> tuple[str, ...]:
    """The colour scale of a metric."""
    return DISTANCE if metric.startswith("distance") else ERROR


def colour(share: float, scale: Sequence[str]) -> str:
    """The colour at a share in [0, 1] of a scale, as `#rrggbb`."""
    place = min(max(share, 0.0), 1.0) * (len(scale) - 1)
    below = min(int(place), len(scale) - 2)
    a, b = _rgb(scale[below]), _rgb(scale[below + 1])
    return "#" + "".join(f"{round(x + (y - x) * (place - below)):02x}" for x, y in zip(a, b, strict=True))


def ink(background: str) -> str:
    """Black or white, whichever reads better on a colour; the contrast is at least 4.58."""
    return "#000000" if _luminance(background) > 0.179 else "#ffffff"


def is_rooted(metric: str, limits: tuple[float, float]) -> bool:
    """Whether colours follow the square root: errors and losses, so that small ones can be told apart."""
    return limits[0] >= 0 and not metric.startswith("distance")


def share(value: float, limits: tuple[float, float], rooted: bool = False) -> float:
    """Where a value lies on the colour scale between the limits, in [0, 1]."""
    place = min(max((value - limits[0]) / (limits[1] - limits[0]), 0.0), 1.0)
    return math.sqrt(place) if rooted else place


def value_ticks(limits: tuple[float, float], rooted: bool, end: bool = False) -> list[float]:
    """Round numbers to label on a scale of colours or heights, and its end if that is asked for."""
    if not rooted:
        return nice_ticks(*limits)
    high = float(f"{limits[1]:.3g}")
    size = 10.0 ** math.floor(math.log10(limits[1]))
    top = next(size * m for m in (5, 2, 1) if size * m <= limits[1])
    ticks = [0.0, *(top * m for m in (0.02, 0.1, 0.2, 0.5, 1.0))]
    return [*ticks, high] if end and high > 1.3 * top else ticks


def tick_indices(n: int, room: int) -> list[int]:
    """Which of n columns get a label when `room` labels fit: evenly spaced, the first and the last always."""
    stride = next((s for s in _STRIDES if math.ceil(n / s) <= room), n)
    chosen = [i for i in range(0, n, stride) if i == 0 or n - 1 - i >= 0.7 * stride]
    return chosen if not n or chosen[-1] == n - 1 else [*chosen, n - 1]


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two limits."""
    raw = (high - low) / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if raw <= size * m * 1.0001)
    first = math.ceil(low / step - 1e-9)
    return [round(step * k, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def early(epoch: float) -> float:
    """The place of an epoch on an axis that spreads early ones: linear to 1, logarithmic after."""
    return epoch if epoch <= 1 else 1 + math.log10(epoch)


def early_ticks(last: float) -> list[int]:
    """Epochs to label on such an axis: 0, 1, 2, 5, 10, ... and the last."""
    ticks = [0] + [m * 10**k for k in range(7) for m in (1, 2, 5)]
    kept = [t for t in ticks if t < last and early(last) - early(t) > 0.12]
    return [*kept, int(last)]


def _rgb(colour: str) -> tuple[int, int, int]:
    digits = colour.removeprefix("#")
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def _luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
