"""Ids and captions of rows that stream by, written as a Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ascl_plugin.disk import into_place, writing
from ascl_plugin.interfaces import Row

_SCHEMA = pa.schema(
    {
        "image_id": pa.string(),
        "image": pa.string(),
        "captions": pa.list_(pa.string()),
        "split": pa.string(),
    }
)


@contextmanager
def caption_table(path: Path) -> Iterator[Callable[[Iterable[Row]], None]]:
    """Give a function that appends rows to a file, which `read_table` reads later.

    Pictures are named, `ID.jpg`, not kept. The file is written aside, and moved into place when the
    context is left without an error.
    """
    aside = path.with_name(f".{path.name}.writing")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = pq.ParquetWriter(aside, _SCHEMA)

    def append(rows: Iterable[Row]) -> None:
        named = [{**row, "image": f"{row['image_id']}.jpg"} for row in rows]
        table = pa.Table.from_pylist(named, _SCHEMA)
        with writing(path):
            writer.write_table(table)

    try:
        yield append
        with writing(path):
            writer.close()
            into_place(aside, path)
    finally:
        aside.unlink(missing_ok=True)
