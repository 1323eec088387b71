"""Runs a list of units and keeps what is done: here, one after the other, or in a pool of processes (`each`)."""

import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from threading import Barrier
from typing import Any, Self, TypeVar

from layerscope.errors import UseError

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many units are done, and how many there are."""

EVERY = 5.0
"""Seconds between two saves of what is done."""

U = TypeVar("U")
R = TypeVar("R")
Apart = Callable[[Callable[[Any], R], Sequence[Any]], list[R]]


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
    """Results by key that are saved as they come: at most every few seconds, and when what is within `with` is stopped, by
    Ctrl-C or an error; only if there is something new."""

    def __init__(self, results: dict[str, R], save: Callable[[dict[str, R]], None]) -> None:
        self._results, self._save = results, save
        self._saved, self._new = time.monotonic(), False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, stopped: type[BaseException] | None, *_: object) -> None:
        if stopped is not None and self._new:
            self._save(self._results)

    def __getitem__(self, key: str) -> R:
        return self._results[key]

    def __setitem__(self, key: str, result: R) -> None:
        self._results[key] = result
        self._new = True
        if time.monotonic() - self._saved >= EVERY:
            self._save(self._results)
            self._saved, self._new = time.monotonic(), False

    def __delitem__(self, key: str) -> None:
        del self._results[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)


class Under(MutableMapping[str, R]):
    """The results whose keys begin with a name and a slash, without it: units of several kinds can be kept in one place."""

    def __init__(self, results: MutableMapping[str, R], name: str) -> None:
        self._results, self._name = results, f"{name}/"

    def __getitem__(self, key: str) -> R:
        return self._results[self._name + key]

    def __setitem__(self, key: str, result: R) -> None:
        self._results[self._name + key] = result

    def __delitem__(self, key: str) -> None:
        del self._results[self._name + key]

    def __iter__(self) -> Iterator[str]:
        return (key.removeprefix(self._name) for key in self._results if key.startswith(self._name))

    def __len__(self) -> int:
        return sum(1 for _ in self)


TOLD = 3
"""Failures that are told in full."""
OFTEN = 0.1
"""Seconds between two messages about one unit from a process of the pool."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What libraries read, when they are loaded, about how many threads to start."""


@dataclass(frozen=True)
class Pool:
    """Where units are worked on: in this process, or in several."""

    workers: int = 1
    """Processes that work at the same time; with one, it is done in this process."""
    threads: int | None = None
    """Threads of PyTorch in each; those there are shared out, if not given."""

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            if (given := getattr(self, name)) is not None and given < 1:
                raise UseError(f"{name} must be at least 1, not {given}")


HERE = Pool()


@dataclass(frozen=True)
class Failed:
    """A unit that could not be done: why, and where that came up (nothing for a `UseError`, which says all)."""

    why: str
    trace: str = ""

    @classmethod
    def of(cls, problem: Exception) -> "Failed":
        if isinstance(problem, UseError):
            return cls(str(problem))
        return cls(f"{type(problem).__name__}: {problem}", traceback.format_exc())


class UnitsFailed(Exception):  # noqa: N818 (an error of the units, not of who asked)
    """Some units raised what is not wrong use; the message has the place of each."""


def tell(failed: Mapping[str, Failed], total: int, what: str) -> None:
    """Raise what failed, by name of the unit, of so many in all: as a `UseError` if that is what all of them raised."""
    if not failed:
        return
    shown = "; ".join(f"{name}: {each.why}" for name, each in list(failed.items())[:TOLD])
    more = f"; and {len(failed) - TOLD} more" if len(failed) > TOLD else ""
    message = f"{len(failed)} of {total} {what} failed, the others are complete: {shown}{more}"
    traces = [each.trace for each in failed.values() if each.trace]
    if not traces:
        raise UseError(message)
    raise UnitsFailed("\n".join([message, *traces[:TOLD]]))


def each(
    units: Sequence[U],
    work: Callable[[U, Progress], R],
    pool: Pool = HERE,
    told: Callable[[int, int, int], None] | None = None,
) -> Generator[tuple[int, R | Failed], None, None]:
    """Number and result of each unit, as they come: a unit that raises is `Failed`, and the others are done all the same.

    `work` gets a unit and a progress; what it says of a unit, done and total, comes to `told` with the number of the unit.
    With more than one worker, `work`, units and results must be picklable, and as the processes are started afresh a script
    needs `if __name__ == "__main__":`. They end with this process, however it ends: killed, too.
    """
    told = told or (lambda number, done, total: None)
    if pool.workers > 1:
        return _in_processes(units, work, pool, told)
    return _here(units, work, pool.threads, told)


def _here(
    units: Sequence[U],
    work: Callable[[U, Progress], R],
    threads: int | None,
    told: Callable[[int, int, int], None],
) -> Generator[tuple[int, R | Failed], None, None]:
    with _threads(threads):
        for number, unit in enumerate(units):
            try:
                result = work(unit, lambda _, done, total, number=number: told(number, done, total))
            except Exception as problem:
                result = Failed.of(problem)
            yield number, result


@contextmanager
def apart(units: int) -> Iterator[Apart]:
    """Gives a function of some work and its pieces: what the work makes of each, in order, by as many threads as PyTorch may use,
    each of which computes alone. For operations on many small matrices, within which PyTorch's own threads gain nothing; as
    they would also keep waiting for the next operation, there is one only until the end of `with`. PyTorch keeps its threads
    where there is but one unit of work."""
    import torch

    threads = torch.get_num_threads()
    if threads == 1 or units < 2:
        yield lambda work, pieces: [work(piece) for piece in pieces]
        return
    pool = _alone(os.getpid(), threads)
    with _threads(1):
        yield lambda work, pieces: list((pool.map if len(pieces) > 1 else map)(work, pieces))


@cache
def _alone(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that stay, for to begin with new ones each time takes as long as much of their work; a process that was forked
    from this one has none of them."""
    import torch

    def begin() -> None:
        torch.get_num_threads()  # a thread has the number of the whole process until it has asked for it
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(threads, "layerscope-alone", begin)
    all_here = Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(all_here.wait)
    all_here.wait()
    torch.set_num_threads(threads)  # what other new threads begin with
    return pool


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """PyTorch has so many threads, and as many as before afterwards."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Worker:
    """A process that works on one unit after the other."""

    def __init__(self, work: bytes, threads: int) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, threads), daemon=True)
        self.process.start()
        theirs.close()  # so that its death is the end of what can be read
        self.ready = False

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


def _in_processes(
    units: Sequence[Any], work: Callable[[Any, Progress], Any], pool: Pool, told: Callable[[int, int, int], None]
) -> Generator[tuple[int, Any], None, None]:
    waiting, at_work = deque(enumerate(units)), dict[Any, tuple[_Worker, int]]()
    idle: list[_Worker] = []
    threads = pool.threads or _share(pool.workers)
    try:
        while waiting or at_work:
            while waiting and len(at_work) < pool.workers:
                worker = idle.pop() if idle else _Worker(pickle.dumps(work), threads)
                number, unit = waiting.popleft()
                at_work[worker.connection] = worker, number
                with suppress(OSError):  # one that has died meanwhile is found below
                    worker.connection.send_bytes(pickle.dumps(unit))
            for connection in wait(list(at_work)):
                worker, number = at_work[connection]
                try:
                    kind, content = worker.connection.recv()
                except (EOFError, OSError):
                    del at_work[connection]
                    yield number, _died(worker)
                    continue
                worker.ready = True
                if kind == "told":
                    told(number, *content)
                elif kind == "result":
                    del at_work[connection]
                    idle.append(worker)
                    yield number, content
    finally:
        for worker in (*idle, *(worker for worker, _ in at_work.values())):
            worker.end()


def _died(worker: _Worker) -> Failed:
    worker.process.join()
    code = worker.process.exitcode
    if not worker.ready:
        raise UseError(
            f"a process of the pool could not start (exit code {code}): a script that asks for several workers must do so "
            'below `if __name__ == "__main__":`'
        )
    worker.end()
    how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    return Failed(f"the process that worked on it {how}; too little memory is the first thing to look for")


def _share(workers: int) -> int:
    """The threads of this process, shared out."""
    import torch

    return max(1, torch.get_num_threads() // workers)


def _serve(connection: Connection, work: bytes, threads: int) -> None:
    """What a process of the pool does until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes: the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    with _threads(threads):
        do = pickle.loads(work)
        connection.send(("ready", None))
        while True:
            unit = pickle.loads(connection.recv_bytes())
            try:
                result = do(unit, _Told(connection))
            except Exception as problem:
                result = Failed.of(problem)
            connection.send(("result", result))


def _end_with_parent() -> None:
    """A killed parent cannot end its children: each waits for that itself."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


class _Told:
    """A progress that goes through a pipe, not too often."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._last = connection, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= OFTEN or done == total:
            self._connection.send(("told", (done, total)))
            self._last = time.monotonic()
