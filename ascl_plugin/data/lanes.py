"""Training rows of a stream, without end: lanes that are read apart and make batches together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ascl_plugin.data.shards import Shards, StreamRow

MOST = 8  # lanes by default, at most
UNEVEN = 1.1  # by default at most, shards of one lane for each of another


class Position(NamedTuple):
    """A position in a lane: plain numbers, for a checkpoint.

    Attributes:
        epoch: pass over the lane's shards.
        shard, row: start of the current block: the shard's place in the pass, the row in it.
        place: rows of the block that were given.
    """

    epoch: int = 0
    shard: int = 0
    row: int = 0
    place: int = 0


START = Position()


class Lanes:
    """Batches of a stream without end, each a chunk of every lane, one lane after another.

    Shards are dealt out to lanes once, by the seed. A lane reads its shards again and again, in
    another order each pass, and shuffles the rows within blocks of consecutive ones. So a lane is a
    function of the seed and needs no other lane; a process reads those that its share of a batch
    touches. No chunk holds rows of two passes: no batch has a row twice, and the few rows that do
    not fill the last chunk of a pass are left out of that pass.

    Memory holds `buffer` rows of all lanes: as one of a block is given, one of the next is read.

    Args:
        source, split, skip_bad: as `Shards` takes them. A row is an image: captions of one image in
            several rows would be each other's negatives.
        batch_size: rows of a batch.
        seed: seed of the order.
        lanes: number of lanes; 0: the most that share a batch out evenly and shards nearly so, up
            to `MOST`. Rows of lanes with fewer rows come around sooner.
        buffer: rows that are shuffled among each other, over all lanes.

    Attributes:
        count: number of lanes.
        chunk: rows of a batch from each lane.

    Raises:
        FileNotFoundError, ValueError: as `Shards`; `lanes` that do not divide a batch, or more
            lanes than shards.
    """

    def __init__(
        self,
        source: str | Path | list[str],
        batch_size: int,
        split: str = "train",
        seed: int = 0,
        lanes: int = 0,
        buffer: int = 2048,
        skip_bad: bool = False,
    ) -> None:
        self.shards = Shards(source, split, skip_bad)
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
    ) -> Iterator[tuple[list[StreamRow], Position]]:
        """Yield the chunks of one lane from a position on, each with the position behind it.

        Rows are those of `Shards.read`, with the numbers that decide about chance: `row`, the row's
        number in the source; `epoch`, the pass; `caption_index`, another one each pass.

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

    def sample(self, rows: int) -> list[StreamRow]:
        """Return the first rows of the source as it lies, fewer where there are fewer."""
        return list(islice(self.shards.share(), rows))

    def _pass(self, lane: int, start: Position) -> Iterator[tuple[StreamRow, Position]]:
        """Yield the rows of one pass, each with the position behind it."""
        source = self._rows(lane, start)
        block = dict(enumerate(islice(source, self.block)))
        skip = start.place
        while block:
            _, shard, row = block[0]
            at = Position(start.epoch, shard, row)
            following: list[tuple[StreamRow, int, int]] = []
            order = np.random.default_rng([self.seed, lane, *at]).permutation(len(block))
            for place, index in enumerate(order.tolist(), 1):
                following += islice(source, 1)
                given, _, _ = block.pop(index)
                if place > skip:
                    yield given, at._replace(place=place)
            block, skip = dict(enumerate(following)), 0

    def _rows(self, lane: int, start: Position) -> Iterator[tuple[StreamRow, int, int]]:
        """Yield a pass as it lies: row, the shard's place in the pass, the row's number in it."""
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
        """Return the lane's shards in the order of a pass."""
        dealt = np.random.default_rng(self.seed).permutation(len(self.shards))[lane :: self.count]
        return np.random.default_rng([self.seed, lane, epoch]).permutation(dealt).tolist()


def _fair(shards: int, batch_size: int) -> int:
    """Return the most lanes up to `MOST` that share a batch out evenly, and shards nearly so."""
    return max(
        lanes
        for lanes in range(1, min(MOST, shards) + 1)
        if batch_size % lanes == 0 and -(-shards // lanes) <= UNEVEN * (shards // lanes)
    )
