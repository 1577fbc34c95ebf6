"""Rows shared out over the processes of a group, and brought together again in order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.distributed as dist
from torch import Tensor

from ascl_plugin.distributed import world_size

CHUNK = 2**26  # bytes sent at once
WAYS = ("one", "split", "own")


@dataclass(frozen=True)
class Shares:
    """Which rows are whose.

    Args:
        counts: rows of each process that takes part, in order of rank.
        rank: number of this process among them.
        device: one that the group's backend sends from.
    """

    counts: tuple[int, ...]
    rank: int
    device: torch.device

    @property
    def total(self) -> int:
        """Rows of all processes."""
        return sum(self.counts)

    @property
    def own(self) -> slice:
        """Rows of this process."""
        ends = list(accumulate(self.counts))
        return slice(ends[self.rank] - self.counts[self.rank], ends[self.rank])

    def exchange(self, rows: Tensor) -> None:
        """Fills in the rows (total, ...) of the other processes, in place, on the CPU."""
        for source, share in enumerate(rows.split(list(self.counts))):
            self.send(share, source)

    def send(self, values: Tensor, source: int) -> None:
        """Values of process `source` to all others, in place, on the CPU."""
        if len(self.counts) == 1 or not values.numel():
            return
        for chunk in values.split(max(1, CHUNK * len(values) // values.nbytes)):
            sent = chunk.to(self.device)
            dist.broadcast(sent, source)
            chunk.copy_(sent)

    def agree(self, message: str | None) -> str | None:
        """What the first process found wrong, or None, on every process; all wait for it."""
        if len(self.counts) == 1:
            return message
        said = [message]
        dist.broadcast_object_list(said, 0, device=self.device)
        return said[0]

    def wait(self) -> None:
        """Until all are here."""
        if len(self.counts) > 1:
            dist.barrier()


def shares(way: str, rows: int, device: torch.device) -> Shares:
    """Who scores what.

    Args:
        way: "one" (this process, all rows), "split" (even, consecutive shares of the same rows) or
            "own" (every process the rows it has).
        rows: here.
        device: to send from.

    Raises:
        ValueError: another word.
    """
    if way not in WAYS:
        raise ValueError(f"processes must be one of {', '.join(WAYS)}, got {way!r}")
    world = world_size()
    if way == "one" or world == 1:
        return Shares((rows,), 0, device)
    if way == "split":
        ends = [rows * r // world for r in range(world + 1)]
        counts = [b - a for a, b in pairwise(ends)]
    else:
        everybody = torch.zeros(world, dtype=torch.int64, device=device)
        everybody[dist.get_rank()] = rows
        dist.all_reduce(everybody)
        counts = everybody.tolist()
    return Shares(tuple(counts), dist.get_rank(), device)


def is_main() -> bool:
    """Whether this process is the first of its group, or alone."""
    return world_size() == 1 or dist.get_rank() == 0
