"""How a claim is measured: both sides in turn, the median of at least five, the machine said."""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

REPEATS = 5


@dataclass(frozen=True)
class Result:
    """One row of the table: what was measured, against what, the goal, and whether it was reached."""

    what: str
    measured: str
    against: str
    goal: str
    reached: bool
    n: int = REPEATS


def ratio(
    ours: Callable[[], object], baseline: Callable[[], object], repeats: int = REPEATS
) -> tuple[float, float, float]:
    """Median seconds of ours, of the baseline, and their ratio; runs alternate, after one of each to warm up."""
    ours(), baseline()
    times = [(seconds(ours), seconds(baseline)) for _ in range(repeats)]
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    return a, b, a / b


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def process_seconds(*arguments: str) -> float:
    """Median wall-clock seconds of a Python process with these arguments."""
    command = [sys.executable, *arguments]
    once = lambda: subprocess.run(command, check=True, capture_output=True)  # noqa: E731
    once()
    return statistics.median(seconds(once) for _ in range(2 * REPEATS))


def machine() -> str:
    """Where the numbers come from."""
    import torch

    where = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{where}; Python {platform.python_version()}, torch {torch.__version__}; {time.strftime('%Y-%m-%d')}"
