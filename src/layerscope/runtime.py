"""Runs a list of units: here, one after the other, in this process."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many units are done, and how many there are."""

U = TypeVar("U")


def each(units: Sequence[U], what: str, progress: Progress | None = None) -> Iterator[U]:
    """The units in order; after each the progress is told."""
    for done, unit in enumerate(units, start=1):
        yield unit
        if progress is not None:
            progress(what, done, len(units))
