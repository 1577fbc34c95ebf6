"""Pairs from sources larger than a disk: webdataset shards, a hub data set, read as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.distributed import split_dataset_by_node

from ascl_plugin.data.shards import Shards, told
from ascl_plugin.disk import into_place, writing


class Stream:
    """Rows of a source in an order that depends on seed, epoch and number of processes alone.

    With a seed, shards are shuffled, and rows among the next `buffer` ones. A process takes every
    `world_size`-th shard, or where shards cannot be shared out evenly, every `world_size`-th row
    of all. Nothing is kept on disk, and of rows in memory only the buffer.

    Args:
        source, split: as of `Shards`.
        seed: of the order; None leaves it as it is.
        epoch: part of the seed.
        buffer: rows among which one is drawn.
        rank, world_size: which process this is, of how many.
        skip: rows of this process that were seen before, in a run of the same arguments; they are
            read and passed over.

    Yields:
        Rows with `image_id`, `image` (``{"path", "bytes"}``, not decoded), `captions`, `split`.
        An image is a row; captions of one image in several rows stay apart.

    Raises:
        FileNotFoundError, KeyError, ValueError: as `Shards`.
    """

    def __init__(
        self,
        source: str | Path | list[str],
        split: str = "train",
        seed: int | None = None,
        epoch: int = 0,
        buffer: int = 1000,
        rank: int = 0,
        world_size: int = 1,
        skip: int = 0,
    ) -> None:
        self.shards = Shards(source, split)
        rows = self.shards.rows
        if seed is not None:
            order = np.random.default_rng([seed, epoch])
            rows = rows.shuffle(generator=order, buffer_size=buffer)
        self.rows = split_dataset_by_node(rows, rank, world_size)
        self.skip = skip

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rows = islice(self.rows, self.skip, None)
        for number, row in enumerate(told(rows, self.shards.name), self.skip):
            source = row.get("__url__", self.shards.name)
            yield self.shards.row(row, f"{source}, row {number}")


def windows(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """`size` rows at a time, as lists; the last may be shorter."""
    rows = iter(rows)
    while window := list(islice(rows, size)):
        yield window


class CaptionTable:
    """Ids and captions of rows that go by, in a Parquet file; what `read_table` reads later.

    The picture is named, `ID.jpg`, not kept. The file is written aside, and moved into place when
    the context is left without an error.

    Args:
        path: of the file; its folder is made when missing.
    """

    SCHEMA = pa.schema(
        {
            "image_id": pa.string(),
            "image": pa.string(),
            "captions": pa.list_(pa.string()),
            "split": pa.string(),
        }
    )

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.aside = self.path.with_name(f".{self.path.name}.writing")

    def __enter__(self) -> CaptionTable:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.writer = pq.ParquetWriter(self.aside, self.SCHEMA)
        return self

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Adds rows."""
        named = [{**row, "image": f"{row['image_id']}.jpg"} for row in rows]
        table = pa.Table.from_pylist(named, self.SCHEMA)
        with writing(self.path):
            self.writer.write_table(table)

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            with writing(self.path):
                self.writer.close()
                if kind is None:
                    into_place(self.aside, self.path)
        finally:
            self.aside.unlink(missing_ok=True)
