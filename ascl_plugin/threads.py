"""Work in CPU threads: many threads of one core each outdo one operation on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 8  # threads at most: each has a tile of its own in memory


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return `work` of each item, in order, on the CPU threads that torch may use; no gradients.

    Operations on tensors that fit a cache are short, and sharing each of them among cores costs
    more than it gives. Autocast in the threads is as in the caller.

    Raises:
        Exception: the first error of `work`; items not yet begun are skipped.
    """
    cores = torch.get_num_threads()
    threads = min(cores, MOST, len(items))
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    @torch.no_grad()
    def alone(item: Item) -> Result:
        with torch.autocast("cpu", dtype, enabled=enabled):
            return work(item)

    if threads < 2:
        return [alone(item) for item in items]
    begin = partial(torch.set_num_threads, cores // threads)
    try:
        with ThreadPoolExecutor(threads, initializer=begin) as pool:
            return list(pool.map(alone, items))
    finally:
        torch.set_num_threads(cores)  # new threads take the number set last


def use_cores(threads: int = 0) -> int:
    """Set the number of CPU threads of torch in this process, and return it.

    Args:
        threads: the number; 0: this process's share of the cores of its machine where a launcher
            set OMP_NUM_THREADS=1 (`accelerate launch` and torchrun do if nothing else is set), and
            torch's default elsewhere.
    """
    launched = {"LOCAL_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"} & os.environ.keys()
    if not threads and launched and os.environ.get("OMP_NUM_THREADS") == "1":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        threads = max(1, (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()
