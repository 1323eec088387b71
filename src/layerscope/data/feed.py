"""Work done by threads ahead of whoever consumes it, in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

NAME = "layerscope-feed"
"""What the names of the threads begin with."""


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], ahead: int) -> Iterator[Result]:
    """What `work` makes of each task, in the order of the tasks, by threads that are at most `ahead` tasks ahead.

    Tasks are taken from `tasks` in the consumer's own thread. An exception of `work` is raised where its result would
    have come. The threads end with the iterator: when it is exhausted, has raised, or is no longer held by anyone.
    """
    pool = ThreadPoolExecutor(threads(), thread_name_prefix=NAME)
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
