"""Pairs from sources larger than a disk: webdataset shards, a hub data set, read as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.distributed import split_dataset_by_node

from ascl_plugin.data.rows import clean_captions, text_id
from ascl_plugin.data.tables import CAPTIONS, IMAGE, IMAGE_ID
from ascl_plugin.disk import into_place, writing

#: Names in a webdataset sample, the first that is there is taken: `KEY.jpg`, `KEY.txt`, `KEY.json`.
PICTURES = (*IMAGE, "jpeg", "webp", "tif", "tiff", "bmp")
TEXTS = (*CAPTIONS, "txt", "json")


class Stream:
    """Rows of a source in an order that depends on seed, epoch and number of processes alone.

    With a seed, shards are shuffled, and rows among the next `buffer` ones. A process takes every
    `world_size`-th shard, or where shards cannot be shared out evenly, every `world_size`-th row
    of all. Nothing is kept on disk, and of rows in memory only the buffer.

    Args:
        source: tar files in webdataset's layout, with wildcards (``shards/*.tar``), one or a list;
            else a hub id ("user/name"), or a folder that `datasets` reads.
        split: of a hub data set or a folder; tar files are one split, which bears this name.
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
        FileNotFoundError: no such files.
        KeyError: a row without image or captions; the message names it.
        ValueError: captions that are none, see `clean_captions`.
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
        self.split = split
        self.name = str(source)
        rows = _open(source, split).decode(False)
        if seed is not None:
            order = np.random.default_rng([seed, epoch])
            rows = rows.shuffle(generator=order, buffer_size=buffer)
        self.rows = split_dataset_by_node(rows, rank, world_size)
        self.skip = skip

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(islice(self.rows, self.skip, None), self.skip):
            yield self._row(row, f"{row.get('__url__', self.name)}, row {number}")

    def _row(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        key = _first(row, IMAGE_ID, where, "id")
        where = f"{where} ({str(key)[:80]})"
        texts = _first(row, TEXTS, where, "captions")
        if isinstance(texts, dict):  # of KEY.json
            texts = _first(texts, CAPTIONS, where, "captions")
        return {
            "image_id": text_id(key, where),
            "image": _first(row, PICTURES, where, "image"),
            "captions": clean_captions([texts] if isinstance(texts, str) else texts, where),
            "split": self.split,
        }


def windows(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """`size` rows at a time, as lists; the last may be shorter."""
    rows = iter(rows)
    while window := list(islice(rows, size)):
        yield window


def _open(source: str | Path | list[str], split: str) -> datasets.IterableDataset:
    patterns = [str(source)] if isinstance(source, str | Path) else [str(s) for s in source]
    if not all(pattern.endswith(".tar") for pattern in patterns):
        return datasets.load_dataset(patterns[0], split=split, streaming=True)
    files = sorted({path for pattern in patterns for path in glob(pattern)})
    if not files:
        raise FileNotFoundError(f"{', '.join(patterns)}: no such tar files")
    return datasets.load_dataset(
        "webdataset", data_files={split: files}, split=split, streaming=True
    )


def _first(row: dict[str, Any], names: Iterable[str], where: str, what: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise KeyError(f"{where}: no {what}; there are {', '.join(row)}")


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
