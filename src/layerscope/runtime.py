"""Runs a list of units and keeps what is done: here, one after the other, in this process."""

import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from typing import TypeVar

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many units are done, and how many there are."""

EVERY = 5.0
"""Seconds between two saves of what is done."""

U = TypeVar("U")
R = TypeVar("R")


def run(
    units: Sequence[U],
    key: Callable[[U], str],
    work: Callable[[Sequence[U]], Iterable[R]],
    done: MutableMapping[str, R],
    what: str = "",
    progress: Progress | None = None,
) -> list[R]:
    """The result of each unit, in order. Units whose key is in `done` are not worked on again; the results of the others,
    which `work` gives in their order, are put there as they come: whoever keeps `done` can go on after a stop."""
    todo = [unit for unit in units if key(unit) not in done]
    before = len(units) - len(todo)
    for count, (unit, result) in enumerate(zip(todo, work(todo), strict=True), start=1):
        done[key(unit)] = result
        if progress is not None:
            progress(what, before + count, len(units))
    return [done[key(unit)] for unit in units]


class Kept(MutableMapping[str, R]):
    """Results by key that are saved as they come: at most every few seconds, and only if there is something new."""

    def __init__(self, results: dict[str, R], save: Callable[[dict[str, R]], None]) -> None:
        self._results, self._save = results, save
        self._saved = time.monotonic()

    def __getitem__(self, key: str) -> R:
        return self._results[key]

    def __setitem__(self, key: str, result: R) -> None:
        self._results[key] = result
        if time.monotonic() - self._saved >= EVERY:
            self._save(self._results)
            self._saved = time.monotonic()

    def __delitem__(self, key: str) -> None:
        del self._results[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)
