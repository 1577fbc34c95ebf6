"""Sources read shard by shard: tar files, or a folder or hub data set that `datasets` streams."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import datasets

from ascl_plugin.data.rows import SPLITS, clean_captions, text_id
from ascl_plugin.data.tables import CAPTIONS, IMAGE_ID
from ascl_plugin.data.tar_files import PICTURES, TEXTS, read_tar, tar_files
from ascl_plugin.interfaces import Row

Item = TypeVar("Item")
Picture = dict[str, object]  # "path" and "bytes"
StreamRow = dict[str, Any]  # `image_id`, `image`, `captions`, `split`


class Shards:
    """The shards of a source, each read by itself, from any of its rows on; no picture is decoded.

    Rows have `image_id`, `image` (``{"path", "bytes"}``), `captions` and `split`. An image is a
    row; captions of one image in several rows stay apart.

    Args:
        source: tar files (see `tar_files`), a hub id ("user/name"), or a folder that `datasets`
            reads.
        split: split of a hub data set or folder, by its name there; tar files are "train", "val" or
            "test", whichever this says.

    Attributes:
        names: (shards,) the name of each in errors.

    Raises:
        FileNotFoundError: no such files, nor a data set that the hub gives.
        ValueError: an unreadable source; no such split.
    """

    def __init__(self, source: str | Path | list[str], split: str = "train") -> None:
        self.split = split
        self.name = ", ".join(map(str, source)) if isinstance(source, list) else str(source)
        files = tar_files(source)
        if files is not None and split not in SPLITS:
            raise ValueError(f"{self.name}: unknown split {split!r}; known are {', '.join(SPLITS)}")
        self._table = _open_stream(self.name, split) if files is None else None
        shards = range(0 if self._table is None else self._table.num_shards)
        self.names = files or [f"{self.name}, shard {n}" for n in shards]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, shard: int, skip: int = 0) -> Iterator[StreamRow]:
        """Yield the rows of one shard after the first `skip`.

        Raises:
            KeyError: a row without image, captions or id; the message names it.
            ValueError: a shard that cannot be read to its end; captions that `clean_captions`
                refuses; a path in place of a picture that leads out of the source's folder.
        """
        name = self.names[shard]
        table = self._table
        samples = read_tar(name) if table is None else table.shard(len(self), shard)
        for number, sample in enumerate(islice(_naming(samples, name), skip, None), skip):
            unnamed = f"{self.split}-{shard}-{number}"
            where = f"{name}, row {number}"
            key = next((key for key in IMAGE_ID if key in sample), None)
            image_id = unnamed if key is None else text_id(sample[key], f"{where}, {key}")
            where = f"{where} ({image_id[:80]})"
            texts = _first(sample, TEXTS, where, "captions")
            if isinstance(texts, dict):  # of KEY.json
                texts = _first(texts, CAPTIONS, where, "captions")
            elif table is None and isinstance(texts, str):  # KEY.txt: a caption a line
                texts = [line for line in texts.splitlines() if line.strip()] or [texts]
            yield {
                "image_id": image_id,
                "image": self._picture(_first(sample, PICTURES, where, "image"), name, where),
                "captions": clean_captions([texts] if isinstance(texts, str) else texts, where),
                "split": self.split,
            }

    def share(self, rank: int = 0, world_size: int = 1) -> Iterator[StreamRow]:
        """Yield the rows of one rank, once, as they lie: every `world_size`-th shard.

        Where shards do not share out evenly, a rank has every `world_size`-th row of all.
        """
        if len(self) % world_size == 0:
            return chain.from_iterable(map(self.read, range(rank, len(self), world_size)))
        rows = chain.from_iterable(map(self.read, range(len(self))))
        return islice(rows, rank, None, world_size)

    def _picture(self, cell: object, shard: str, where: str) -> Picture:
        """Return the undecoded picture; its path, which errors name, names the shard, too."""
        if not isinstance(cell, Mapping):
            raise ValueError(f"{where}: the image is {repr(cell)[:80]}, expected a picture's bytes")
        data, path = cell.get("bytes"), cell.get("path")
        if data is not None:
            return {"path": os.path.join(shard, os.path.basename(path or "")), "bytes": data}
        folder = os.path.realpath(self.name)
        inside = os.path.realpath(path) if path else "/"
        if not os.path.isdir(folder) or os.path.commonpath([folder, inside]) != folder:
            raise ValueError(f"{where}: the image is path {path!r}, which is not of the source")
        return {"path": path, "bytes": None}


def windows(rows: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` rows; the last may be shorter."""
    rows = iter(rows)
    while window := list(islice(rows, size)):
        yield window


def _open_stream(name: str, split: str) -> datasets.IterableDataset:
    try:
        return datasets.load_dataset(name, split=split, streaming=True).decode(False)
    except OSError as error:
        raise FileNotFoundError(
            f"{name}: neither tar files, nor a folder or hub data set that streams "
            f"({str(error).splitlines()[0]})"
        ) from error
    except Exception as error:  # each format fails in its own way
        raise ValueError(f"{name} cannot be read, or is empty: {error}") from error


def _naming(rows: Iterable[Item], name: str) -> Iterator[Item]:
    """Yield the rows, and raise what goes wrong in reading them with the name of their shard.

    Raises:
        ValueError: in place of any error of tarfile, `datasets`, Arrow and their like.
    """
    given = 0
    try:
        for row in rows:
            yield row
            given += 1
    except Exception as error:
        after = f"after row {given - 1}" if given else "at its beginning"
        raise ValueError(
            f"{name} cannot be read {after}: {type(error).__name__}: {error}"
        ) from error


def _first(row: Row, names: Iterable[str], where: str, what: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise KeyError(f"{where}: no {what}; there are {', '.join(row)}")
