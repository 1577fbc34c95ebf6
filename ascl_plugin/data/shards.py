"""A source that streams, shard by shard: tar files in webdataset's layout, or what a hub has."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from ascl_plugin.data.rows import clean_captions, text_id
from ascl_plugin.data.tables import CAPTIONS, IMAGE, IMAGE_ID

#: Names in a webdataset sample, the first that is there is taken: `KEY.jpg`, `KEY.txt`, `KEY.json`.
PICTURES = (*IMAGE, "jpeg", "webp", "tif", "tiff", "bmp")
TEXTS = (*CAPTIONS, "txt", "json")
EMBEDDED = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
BLOCK = 512  # bytes of a tar; two blocks of zeros are its end


class Shards:
    """The shards of a source, each read by itself, from any of its rows on; nothing is decoded.

    Args:
        source: tar files in webdataset's layout, with wildcards (``shards/*.tar``), one or a list;
            else a hub id ("user/name"), or a folder that `datasets` reads.
        split: of a hub data set or a folder; tar files are one split, which bears this name.

    Attributes:
        rows: all of them, a `datasets.IterableDataset`.
        names: (shards,) what errors call each.

    Raises:
        FileNotFoundError: no such files, nor a data set that the hub gives.
        ValueError: they cannot be read; no such split.
    """

    def __init__(self, source: str | Path | list[str], split: str = "train") -> None:
        self.split = split
        self.name = str(source)
        self.folder = os.path.realpath(self.name) if os.path.isdir(self.name) else None
        patterns = [str(source)] if isinstance(source, str | Path) else [str(s) for s in source]
        files: list[str] = []
        if all(pattern.endswith(".tar") for pattern in patterns):
            files = sorted({path for pattern in patterns for path in glob(pattern)})
            if not files:
                raise FileNotFoundError(f"{', '.join(patterns)}: no such tar files")
        rows = self._load(files)
        if files:  # as an Image, a picture's bytes give way to a file here that has its name
            for name, kind in dict(rows.features).items():
                if isinstance(kind, datasets.Image):
                    rows = rows.cast_column(name, EMBEDDED)
        self.rows = rows.decode(False)
        self.names = files or [f"{self.name}, shard {n}" for n in range(self.rows.num_shards)]

    def _load(self, files: list[str]) -> datasets.IterableDataset:
        try:
            if not files:
                return datasets.load_dataset(self.name, split=self.split, streaming=True)
            refuse_cut(files[0])
            return datasets.load_dataset(
                "webdataset", data_files={self.split: files}, split=self.split, streaming=True
            )
        except OSError as error:
            raise FileNotFoundError(
                f"{self.name}: neither tar files, nor a folder or hub data set that streams "
                f"({str(error).splitlines()[0]})"
            ) from error
        except Exception as error:  # of `datasets`, tarfile, Arrow, ...: columns come of the first
            raise ValueError(
                f"{files[0] if files else self.name} cannot be read, or is empty: {error}"
            ) from error

    def __len__(self) -> int:
        return len(self.names)

    def read(self, shard: int, skip: int = 0) -> Iterator[dict[str, Any]]:
        """Rows of one shard as `Stream` yields them, after the first `skip`.

        Raises:
            ValueError: the shard cannot be read to its end, as a tar file that was cut short.
        """
        name = self.names[shard]
        rows = islice(self.rows.shard(len(self), shard), skip, None)
        if name.endswith(".tar"):
            refuse_cut(name)
        for number, row in enumerate(told(rows, name), skip):
            yield self.row(row, f"{name}, row {number}", f"{self.split}-{shard}-{number}")

    def row(self, raw: dict[str, Any], where: str, unnamed: str | None = None) -> dict[str, Any]:
        """One row of ours.

        Args:
            raw: as `rows` yields it.
            where: it comes from, for errors.
            unnamed: id of a row that has none.

        Raises:
            KeyError: a row without image, captions or id; the message names it.
            ValueError: captions that are none, see `clean_captions`; a path in place of a picture
                that does not lead into the source's folder.
        """
        if unnamed is None or any(raw.get(name) is not None for name in IMAGE_ID):
            unnamed = text_id(_first(raw, IMAGE_ID, where, "id"), where)
        where = f"{where} ({unnamed[:80]})"
        texts = _first(raw, TEXTS, where, "captions")
        if isinstance(texts, dict):  # of KEY.json
            texts = _first(texts, CAPTIONS, where, "captions")
        return {
            "image_id": unnamed,
            "image": self._picture(_first(raw, PICTURES, where, "image"), where),
            "captions": clean_captions([texts] if isinstance(texts, str) else texts, where),
            "split": self.split,
        }

    def _picture(self, cell: Any, where: str) -> dict[str, Any]:
        """The undecoded picture; its path, of which errors tell, names the shard, too."""
        if not isinstance(cell, Mapping):
            raise ValueError(f"{where}: the image is {repr(cell)[:80]}, expected a picture's bytes")
        data, path = cell.get("bytes"), cell.get("path")
        if data is not None:
            shard = where.partition(", row ")[0]
            return {"path": os.path.join(shard, os.path.basename(path or "")), "bytes": data}
        inside = os.path.realpath(path) if path else ""
        if not (self.folder and os.path.commonpath([self.folder, inside or "/"]) == self.folder):
            raise ValueError(f"{where}: the image is path {path!r}, which is not of the source")
        return {"path": path, "bytes": None}


def told(rows: Iterable[Any], name: str) -> Iterator[Any]:
    """The rows; what goes wrong in reading them is told with the name of their source.

    Raises:
        ValueError: in place of any error of `datasets`, tarfile, Arrow and their like.
    """
    rows = iter(rows)
    number = -1
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            after = f"after row {number}" if number >= 0 else "at its beginning"
            raise ValueError(
                f"{name} cannot be read {after}: {type(error).__name__}: {error}"
            ) from error
        number += 1
        yield row


def refuse_cut(path: str | Path) -> None:
    """Nothing, when a tar file ends as tar files do; one cut between members reads without error.

    Raises:
        ValueError: it does not.
        OSError: there is no such file.
    """
    with open(path, "rb") as file:
        plain = file.read(BLOCK)[257:262] == b"ustar"  # not a compressed one
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * BLOCK))
        ends = size % BLOCK == 0 and not any(file.read())
    if plain and not ends:
        raise ValueError(f"{path} is cut short: it lacks the end of a tar file; put it back whole")


def _first(row: dict[str, Any], names: Iterable[str], where: str, what: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise KeyError(f"{where}: no {what}; there are {', '.join(row)}")
