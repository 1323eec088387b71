"""The best answer that fits into a time: which changes get samples next, widest intervals first, until the time is over.

Bounds hold however samples are given out (see `layerscope.sequential`), so this file decides nothing but who is next:

    the widest open cell first, ties in the order asked: those without any samples before all others;
    with it up to `TOGETHER` cells of the same split and as many samples, whose intervals are at least `ALIKE` times as wide;
    these get as many samples as they have (at first `FIRST`), so that they have twice as many;
    less, down to one batch of one cell, where that would take more than `SHARE` of the time left at the mean pace so far.

So the time is overrun by one batch of one cell, or by what takes more than twice as long as the pace foretold.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from layerscope.engine import replay
from layerscope.engine.task import Row
from layerscope.perturb import Variant
from layerscope.sequential import Answers

FIRST = 256
"""Samples that every cell gets first."""
TOGETHER = replay.TOGETHER[1]
"""Cells that are measured together at most: as many as the exact engine takes."""
ALIKE = 0.7
"""Twice the samples make an interval narrower by about this factor: a cell that is narrower still can wait."""
SHARE = 0.5
"""Of the time left, at most this is planned for what is next: some cells take longer than others."""

STATES = ("exact", "settled", "open", "failed", "not measured")
"""What may be known of a cell: all; what was asked; its bounds so far; that it fails; nothing."""


@dataclass(frozen=True)
class Cell:
    """What is known of one Variant on one split, and how many seconds that took. `place` is what the engine said of it last:
    status, engine, coordinates; nothing before it was measured."""

    split: str
    variant: Variant
    answers: Answers
    seconds: float = 0.0
    place: Row = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The name under which it is kept."""
        return f"{self.split} {self.variant.id}"

    @cached_property
    def n(self) -> int:
        """Samples it has had."""
        return int(self.answers.n[0])

    @cached_property
    def width(self) -> float:
        """Of its interval; 1 before any sample."""
        return float(self.answers.high[0] - self.answers.low[0])

    @cached_property
    def state(self) -> str:
        """One of `STATES`."""
        if not self.place:
            return "not measured"
        if self.place["status"] == "failed":
            return "failed"
        return "exact" if self.n == self.answers.question.n else "open" if self.answers.open[0] else "settled"

    @property
    def open(self) -> bool:
        """Whether more samples would tell more of it."""
        return self.state in ("open", "not measured")

    def kept(self) -> Row:
        """What to keep to go on later, of plain values."""
        return {"place": self.place, "seconds": self.seconds, "known": self.answers.state()}

    def resumed(self, kept: Row) -> "Cell":
        """Goes on from what was `kept`."""
        known = Answers.resumed(self.answers.question, kept["known"], 1)
        return replace(self, answers=known, seconds=kept["seconds"], place=kept["place"])


@dataclass(frozen=True)
class Piece:
    """What is measured next: some cells (by their numbers) on the batches from `start` to before `stop` of their split."""

    cells: tuple[int, ...]
    start: int
    stop: int


Work = Callable[[Sequence[Cell], int, int], Iterable[Cell]]
"""Measures cells of one split on the batches from .. to before .., and gives them in order with what is known then."""


def spend(
    cells: Sequence[Cell], ends: Mapping[str, Sequence[int]], work: Work, seconds: float, clock: Callable[[], float]
) -> Iterator[tuple[int, Cell]]:
    """Measures cells until their time is over, or none is open: gives the number of a cell and what is known of it, each time
    that more is known.

    `ends` says after how many samples each batch of a split ends. What cells have taken before counts: who keeps them
    can go on after a stop with the time that is left. What the caller does in between does not count. What cells answer
    depends on nothing but how many samples each got; how many these are, depends on the clock.
    """
    now = list(cells)
    while (left := seconds - used(now)) > 0 and (piece := following(now, ends, left)) is not None:
        began = clock()
        found = work([now[i] for i in piece.cells], piece.start, piece.stop)
        for i, cell in zip(piece.cells, found, strict=True):
            now[i] = replace(cell, seconds=cell.seconds + clock() - began)
            yield i, now[i]
            began = clock()


def used(cells: Iterable[Cell]) -> float:
    """The seconds that cells have taken."""
    return sum(cell.seconds for cell in cells)


def following(cells: Sequence[Cell], ends: Mapping[str, Sequence[int]], left: float) -> Piece | None:
    """What to measure next with `left` seconds; None if no cell is open."""
    ranked = sorted((i for i, cell in enumerate(cells) if cell.open), key=lambda i: -cells[i].width)
    if not ranked:
        return None
    widest = cells[ranked[0]]
    beside = [i for i in ranked if (cells[i].split, cells[i].n) == (widest.split, widest.n)]
    chosen = [i for i in beside if cells[i].width >= ALIKE * widest.width][:TOGETHER]
    looks, pace = ends[widest.split], _pace(cells)
    start = bisect_right(looks, widest.n)
    stop = min(bisect_left(looks, max(FIRST, 2 * widest.n)) + 1, len(looks))

    def fits() -> bool:
        return pace * len(chosen) * (looks[stop - 1] - widest.n) <= SHARE * left

    while stop - start > 1 and not fits():
        stop -= 1
    while len(chosen) > 1 and not fits():
        chosen = chosen[: len(chosen) // 2]
    return Piece(tuple(chosen), start, stop)


def _pace(cells: Sequence[Cell]) -> float:
    """Seconds that a cell takes for a sample, on average so far; infinite as long as nobody knows."""
    samples = sum(cell.n for cell in cells)
    return used(cells) / samples if samples else float("inf")


def tally(cells: Iterable[Cell]) -> dict[str, int]:
    """How many cells there are of each state."""
    found = Counter(cell.state for cell in cells)
    return {state: found[state] for state in STATES}
