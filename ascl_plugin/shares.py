"""Rows split over the ranks of a process group, and gathered again in order."""

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
    """Rows of each rank; methods other than properties are collective.

    Args:
        counts: number of rows of each participating rank, in order.
        rank: rank of this process.
        device: a device that the group's backend sends from.
    """

    counts: tuple[int, ...]
    rank: int
    device: torch.device

    @property
    def total(self) -> int:
        """Number of rows of all ranks."""
        return sum(self.counts)

    @property
    def own(self) -> slice:
        """Rows of this rank."""
        ends = list(accumulate(self.counts))
        return slice(ends[self.rank] - self.counts[self.rank], ends[self.rank])

    def exchange(self, rows: Tensor) -> None:
        """Fill in the rows of other ranks in place; `rows` (total, ...) is on the CPU."""
        for source, share in enumerate(rows.split(list(self.counts))):
            self.send(share, source)

    def send(self, values: Tensor, source: int) -> None:
        """Broadcast values of rank `source` in place, on the CPU."""
        if len(self.counts) == 1 or not values.numel():
            return
        for chunk in values.split(max(1, CHUNK * len(values) // values.nbytes)):
            sent = chunk.to(self.device)
            dist.broadcast(sent, source)
            chunk.copy_(sent)

    def agree(self, message: str | None) -> str | None:
        """Broadcast rank 0's error message, or None."""
        if len(self.counts) == 1:
            return message
        messages = [message]
        dist.broadcast_object_list(messages, 0, device=self.device)
        return messages[0]

    def wait(self) -> None:
        """Wait for all ranks."""
        if len(self.counts) > 1:
            dist.barrier()


def shares(way: str, rows: int, device: torch.device) -> Shares:
    """Return the shares of the ranks. Collective if `way` is "own".

    Args:
        way: "one" (this process, all rows), "split" (even, consecutive shares of the same rows) or
            "own" (each rank's own rows).
        rows: number of rows here.
        device: a device that the group's backend sends from.

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
        of_ranks = torch.zeros(world, dtype=torch.int64, device=device)
        of_ranks[dist.get_rank()] = rows
        dist.all_reduce(of_ranks)
        counts = of_ranks.tolist()
    return Shares(tuple(counts), dist.get_rank(), device)


def is_main() -> bool:
    """Return True on rank 0, and without a process group."""
    return world_size() == 1 or dist.get_rank() == 0
