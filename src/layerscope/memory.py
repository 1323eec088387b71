"""How much memory work takes beyond what was there before."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

R = TypeVar("R")

PROCESS = Path("/proc/self")
"""Where Linux tells of this process, and is asked to forget its peak."""


def peak(work: Callable[[], R], device: torch.device | None = None) -> tuple[R, int | None]:
    """What some work gives, and the most bytes that it took at once beyond what was there before: of tensors on a CUDA
    device; otherwise of this process's memory that is in RAM, which has in it what allocators hold back and the pages of
    files that are mapped. None where nobody can say: only Linux tells."""
    gc.collect()
    if device is not None and device.type == "cuda":
        return _on_cuda(work, device)
    _give_back()
    if not _forget():
        return work(), None
    before = _bytes("VmRSS")
    found = work()
    return found, max(0, _bytes("VmHWM") - before)


def _on_cuda(work: Callable[[], R], device: torch.device) -> tuple[R, int]:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    found = work()
    torch.cuda.synchronize(device)
    return found, torch.cuda.max_memory_allocated(device) - before


def _give_back() -> None:
    """Lets glibc's allocator give back what it holds: work that uses it would seem to take nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _forget() -> bool:
    """Makes the present the peak; whether that could be done."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _bytes(name: str) -> int:
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
