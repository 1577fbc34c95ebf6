"""Seconds and bytes of a piece of work; shared by the other scripts."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path

import torch


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the least time of `repeats` runs after a warm-up; of the warm-up, with 0 repeats."""
    best = float("inf")
    for i in range(repeats + 1):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if i or not repeats:
            best = min(best, time.perf_counter() - start)
    return best


def peak(work: Callable[[], object]) -> float:
    """Return the most bytes in use during the work, above those before."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    try:
        before = trimmed()
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    except OSError:
        return float("nan")
    work()
    return resident("VmHWM") - before


def held(work: Callable[[], object]) -> float:
    """Return the bytes in use while the result of the work lives, above those before."""
    gc.collect()
    on_gpu = torch.cuda.is_available()
    before = torch.cuda.memory_allocated() if on_gpu else trimmed()
    result = work()
    gc.collect()
    after = torch.cuda.memory_allocated() if on_gpu else trimmed()
    del result
    return after - before


def trimmed() -> int:
    """Return resident bytes after freed memory is given back; else it would be taken again."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident("VmRSS")


def resident(name: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return int(line.split()[1]) * 1024
