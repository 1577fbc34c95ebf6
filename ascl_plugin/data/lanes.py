"""Training rows of a stream, over and over: lanes that are read apart and make batches together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ascl_plugin.data.shards import Shards

MOST = 8  # lanes, where no number is given
UNEVEN = 1.1  # shards of one lane for each of another, at most, where no number is given


class Position(NamedTuple):
    """Where a lane stands: plain numbers, for a checkpoint."""

    #: pass over the lane's shards
    epoch: int = 0
    #: where the block of rows under way begins: the shard's place in the pass, the row in it
    shard: int = 0
    row: int = 0
    #: rows of the block that were given
    place: int = 0


START = Position()


class Lanes:
    """Batches of a stream without end, each a chunk of every lane, one lane after another.

    Shards are dealt out to lanes once, by the seed. A lane reads its shards again and again, in
    another order each pass, and shuffles the rows within blocks of consecutive ones. So a lane is a
    function of the seed and needs no other lane; a process reads those that its share of a batch
    touches. No chunk holds rows of two passes: no batch has a row twice, and the few rows that do
    not fill the last chunk of a pass are left out of that pass.

    Of rows in memory there are `buffer` of all lanes: as one of a block is given, one of the next
    is read.

    Args:
        source, split: as of `Shards`. A row is an image: captions of one image in several rows
            would be each other's negatives.
        batch_size: rows of a batch.
        seed: of the order.
        lanes: how many; 0: the most that share a batch out evenly and shards nearly so, up to
            `MOST`. Rows of lanes with fewer rows come around sooner.
        buffer: rows that are shuffled among each other, over all lanes.

    Attributes:
        count: lanes there are.
        chunk: rows of a batch that come from each.

    Raises:
        FileNotFoundError, ValueError: as `Shards`; `lanes` that do not divide a batch, or are more
            than the shards.
    """

    def __init__(
        self,
        source: str | Path | list[str],
        batch_size: int,
        split: str = "train",
        seed: int = 0,
        lanes: int = 0,
        buffer: int = 2048,
    ) -> None:
        self.shards = Shards(source, split)
        self.count = lanes or _fair(len(self.shards), batch_size)
        if batch_size % self.count:
            raise ValueError(f"{lanes} lanes do not divide a batch of {batch_size}")
        if self.count > len(self.shards):
            raise ValueError(f"{lanes} lanes of {len(self.shards)} shard(s): a lane needs one")
        self.chunk = batch_size // self.count
        self.seed = seed
        self.block = max(1, buffer // self.count)

    def chunks(
        self, lane: int, start: Position = START
    ) -> Iterator[tuple[list[dict[str, Any]], Position]]:
        """Chunks of one lane from a position on, each with the position behind it.

        Yields:
            Rows as `Shards.read` gives them, with what chance is drawn from: `row`, the number of
            the row in the source; `epoch`, the pass; `caption_index`, another one each pass.

        Raises:
            ValueError: as `Shards.read`; a shard without rows; a lane with fewer rows than a chunk.
        """
        for epoch in count(start.epoch):
            fresh = Position(epoch)
            rows = self._pass(lane, start if epoch == start.epoch else fresh)
            given = start.epoch == epoch and start != fresh
            while len(chunk := list(islice(rows, self.chunk))) == self.chunk:
                given = True
                yield [row for row, _ in chunk], chunk[-1][1]
            if not given:
                raise ValueError(
                    f"{self.shards.names[self._order(lane, 0)[0]]} and what else is in its lane "
                    f"hold {len(chunk)} row(s), and {self.chunk} of each batch come from there: "
                    "fewer lanes, or a smaller batch"
                )

    def __str__(self) -> str:
        return f"{len(self.shards)} shard(s) of {self.shards.name} in {self.count} lane(s)"

    def sample(self, rows: int) -> list[dict[str, Any]]:
        """The first rows of the source as it lies, whatever the seed; fewer where there are."""
        return list(islice(self.shards.share(), rows))

    def _pass(self, lane: int, start: Position) -> Iterator[tuple[dict[str, Any], Position]]:
        """Rows of one pass, each with the position behind it."""
        source = self._rows(lane, start)
        block: list[Any] = list(islice(source, self.block))
        skip = start.place
        while block:
            _, shard, row = block[0]
            at = Position(start.epoch, shard, row)
            following: list[Any] = []
            order = np.random.default_rng([self.seed, lane, *at]).permutation(len(block))
            for place, index in enumerate(order, 1):
                following += islice(source, 1)
                if place > skip:
                    yield block[index][0], at._replace(place=place)
                block[index] = None  # read by now, and large
            block, skip = following, 0

    def _rows(self, lane: int, start: Position) -> Iterator[tuple[dict[str, Any], int, int]]:
        """Rows of a pass as they lie, each with the shard's place in the pass and its row there."""
        order, first = self._order(lane, start.epoch), start.row
        for place in range(start.shard, len(order)):
            shard = order[place]
            number = -1
            for number, row in enumerate(self.shards.read(shard, first), first):
                row["row"] = number * len(self.shards) + shard
                row["epoch"] = start.epoch
                captions = np.random.default_rng([self.seed, row["row"]]).permutation(
                    len(row["captions"])
                )
                row["caption_index"] = int(captions[start.epoch % len(captions)])
                yield row, place, number
            if number < 0:
                raise ValueError(f"{self.shards.names[shard]} holds no rows; remove it")
            first = 0

    def _order(self, lane: int, epoch: int) -> list[int]:
        """The lane's shards in the order of a pass."""
        dealt = np.random.default_rng(self.seed).permutation(len(self.shards))[lane :: self.count]
        return np.random.default_rng([self.seed, lane, epoch]).permutation(dealt).tolist()


def _fair(shards: int, batch_size: int) -> int:
    """Lanes that share a batch out evenly, and shards nearly so; at most `MOST`."""
    return max(
        lanes
        for lanes in range(1, min(MOST, shards) + 1)
        if batch_size % lanes == 0 and -(-shards // lanes) <= UNEVEN * (shards // lanes)
    )
