"""Ids and captions of rows that stream by, written as a Parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from ascl_plugin.disk import into_place, writing


class CaptionTable:
    """A Parquet file of ids and captions, which `read_table` reads later.

    The picture is named, `ID.jpg`, not kept. The file is written aside, and moved into place when
    the context is left without an error.

    Args:
        path: the file to write; its folder is made when missing.
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

    def write(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Append rows with `image_id`, `captions` and `split`."""
        named = [{**row, "image": f"{row['image_id']}.jpg"} for row in rows]
        table = pa.Table.from_pylist(named, self.SCHEMA)
        with writing(self.path):
            self.writer.write_table(table)

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        try:
            with writing(self.path):
                self.writer.close()
                if kind is None:
                    into_place(self.aside, self.path)
        finally:
            self.aside.unlink(missing_ok=True)
