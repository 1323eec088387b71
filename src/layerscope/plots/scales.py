"""Colours, marks, scales and ticks that every picture shares. Plain values, no drawing."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

ERROR = ("ffffd9", "edf8b1", "c7e9b4", "7fcdbb", "41b6c4", "1d91c0", "225ea8", "253494", "081d58")
"""Colours of errors and losses: ColorBrewer's YlGnBu, light for none; safe without colour vision."""
DISTANCE = ("ffffe5", "fff7bc", "fee391", "fec44f", "fe9929", "ec7014", "cc4c02", "993404", "662506")
"""Colours of distances: ColorBrewer's YlOrBr, so that the kinds of map are not mistaken for each other."""

LINES = ("0072b2", "b34a00", "007a5a", "a83279", "444444", "8a6d00", "5b4fc9", "2b7fa8")
"""Colours of lines: Okabe and Ito's, darkened to a contrast of 3 or more on white."""
DASHES = ("", "7 3", "2 2", "9 3 2 3")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_STRIDES = (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000, 10000)

NEAR = 0.1
"""A scale begins at zero (shares that are better high: ends at 100 %) if that makes it longer by this share at most."""
WIDE = 50.0
"""Amounts whose largest is more than this times their smallest get a logarithmic scale."""
_FAR = 1e4
"""A logarithmic scale ends at this times the middle value: one number that overflows does not make all others alike."""


@dataclass(frozen=True)
class Scale:
    """Numbers to places between 0 and 1. `flipped` where the high end is the good one, which is light."""

    low: float
    high: float
    kind: Literal["linear", "root", "log"] = "linear"
    flipped: bool = False
    clipped: bool = False
    """Whether some numbers lie beyond its bad end."""

    def up(self, value: float) -> float:
        """Where a value lies, the higher the larger; the ends for what lies beyond them."""
        value = min(max(value, self.low), self.high)
        if self.kind == "log":
            return math.log(value / self.low) / math.log(self.high / self.low)
        place = (value - self.low) / (self.high - self.low)
        if self.kind == "linear":
            return place
        return 1 - math.sqrt(1 - place) if self.flipped else math.sqrt(place)

    def value(self, place: float) -> float:
        """What lies at a place: the inverse of `up`."""
        if self.kind == "log":
            return self.low * (self.high / self.low) ** place
        if self.kind == "root":
            place = 1 - (1 - place) ** 2 if self.flipped else place * place
        return self.low + (self.high - self.low) * place

    def shade(self, value: float) -> float:
        """Where a value lies from good (0, light) to bad (1, dark)."""
        return 1 - self.up(value) if self.flipped else self.up(value)

    def ticks(self, end: bool = False) -> list[float]:
        """Round numbers to label; with `end` the ends too, where they are apart from those."""
        if self.kind == "root" and not self.flipped and self.low == 0:
            return _root_ticks(self.high, end)
        ticks = _log_ticks(self.low, self.high) if self.kind == "log" else nice_ticks(self.low, self.high)
        if self.kind == "linear":
            return ticks
        kept: list[float] = []
        for tick in sorted({*ticks, self.low, self.high} if end else ticks, key=self.shade):
            if not kept or self.shade(tick) - self.shade(kept[-1]) > 0.13:
                kept.append(tick)
        return sorted(float(f"{tick:.3g}") for tick in kept)

    @property
    def words(self) -> str:
        """The kind of the scale as an adjective; empty for a linear one."""
        return {"linear": "", "root": "square-root", "log": "logarithmic"}[self.kind]

    def with_margin(self, factor: float) -> "Scale":
        """A little longer at the top (and at the bottom, unless that is zero), as axes are."""
        if self.kind == "log":
            return replace(self, low=self.low / factor, high=self.high * factor)
        margin = (factor - 1) * (self.high - self.low)
        return replace(self, low=self.low and self.low - margin, high=self.high + margin)


def from_zero(values: Iterable[float], kind: Literal["linear", "root"], higher: bool = False) -> Scale:
    """A scale from zero to the largest value (from the smallest, if that is negative, and then always linear)."""
    values = [value for value in values if math.isfinite(value)]
    low, high = min([0.0, *values]), max([0.0, *values])
    return Scale(low, high if high > low else low + 1.0, "linear" if low < 0 or higher else kind, higher)


def of_shares(values: Iterable[float], chance: float = math.nan, higher: bool = False) -> Scale:
    """The scale of per cents: from the best value (from none wrong, where that is near) to the worst, or to chance."""
    low, high = _ends([*values, chance])
    if higher:
        high = 100.0 if 0 <= 100 - high <= NEAR * (100 - low) else high
    elif 0 <= low <= NEAR * high:
        low = 0.0
    return Scale(low, high if high > low else low + 1.0, "root", higher)


def of_amounts(
    values: Iterable[float], chance: float = math.nan, higher: bool = False, exponential: bool = False
) -> Scale:
    """The scale of losses and other amounts: from the best value (from zero, where that is near) to chance, if known.

    What is worse than chance has the colour of chance. Without chance the scale ends at the worst value. It follows the
    square root, but is logarithmic where the largest value is more than 50 times the smallest positive one, if chance does
    not tell what is much (or the amount is the exponential of one).
    """
    found = [value for value in values if math.isfinite(value)]
    low, high = _ends(found)
    known = math.isfinite(chance) and (chance < high if higher else chance > low)
    if known:
        low, high = (chance, high) if higher else (low, chance)
    if not higher and (exponential or not known) and _is_wide(found, low):
        return _log(found, chance if known else math.inf)
    if not higher and 0 <= low <= NEAR * high:
        low = 0.0
    beyond = any(value < low or value > high for value in found)
    return Scale(low, high if high > low else low + 1.0, "root", higher, beyond)


def _is_wide(values: Sequence[float], low: float) -> bool:
    """Whether values, none negative, span orders of magnitude."""
    positive = [value for value in values if value > 0]
    return low >= 0 and bool(positive) and max(positive) > WIDE * min(positive)


def _log(values: Sequence[float], worst: float) -> Scale:
    """A logarithmic scale of the positive values."""
    positive = [value for value in values if value > 0]
    end = worst if math.isfinite(worst) else min(max(positive), _FAR * statistics.median(positive))
    return Scale(min(positive), end, "log", clipped=max(positive) > end)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    return min(finite, default=0.0), max(finite, default=0.0)


def stops(metric: str) -> tuple[str, ...]:
    """The colours of a metric."""
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


def _root_ticks(top: float, end: bool) -> list[float]:
    """Ticks of a square-root scale from zero."""
    high = float(f"{top:.3g}")
    size = 10.0 ** math.floor(math.log10(top))
    largest = next(size * m for m in (5, 2, 1) if size * m <= top)
    ticks = [0.0, *(largest * m for m in (0.02, 0.1, 0.2, 0.5, 1.0))]
    return [*ticks, high] if end and high > 1.3 * largest else ticks


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... between two limits; powers of ten alone, or some of them, where these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = math.ceil(len(powers) / 7)
    for digits, stride in (((1, 2, 5), 1), ((1,), 1), ((1,), every)):
        ticks = [m * 10.0**k for k in powers[::stride] for m in digits if low <= m * 10.0**k <= high]
        if len(ticks) <= 7:
            break
    return ticks


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
    """Epochs to label on such an axis: 0, 1, 2, 5, 10, ... and the last; without 2, 5, 20, ... where numbers are so long that
    they would touch."""
    kept: list[int] = []
    for digits in ((1, 2, 5), (1,)):
        ticks = [0] + [m * 10**k for k in range(10) for m in digits]
        kept = [tick for tick in ticks if tick < last and early(last) - early(tick) > _room(int(last), last)]
        if all(early(after) - early(before) > _room(after, last) for before, after in pairwise(kept)):
            break
    return [*kept, int(last)]


def _room(tick: int, last: float) -> float:
    """How far a label must be from that before it, for a character that takes a 90th of the axis."""
    return max(0.12, early(last) * len(str(tick)) / 90)


def _rgb(colour: str) -> tuple[int, int, int]:
    digits = colour.removeprefix("#")
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def _luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
