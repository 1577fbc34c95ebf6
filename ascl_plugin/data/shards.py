"""Sources read shard by shard: tar files, or a folder or hub data set that `datasets` streams."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import datasets

from ascl_plugin.data.rows import SPLITS, clean_captions, text_id
from ascl_plugin.data.tables import CAPTIONS, IMAGE_ID
from ascl_plugin.data.tar_files import (
    PICTURES,
    TEXTS,
    by_split,
    decoded,
    read_tar,
    tar_files,
    tars_below,
)
from ascl_plugin.interfaces import Row

Item = TypeVar("Item")
Picture = dict[str, object]  # "path" and "bytes"
StreamRow = dict[str, Any]  # `image_id`, `image`, `captions`, `split`


class Shards:
    """The shards of a source, each read by itself, from any of its rows on; no picture is decoded.

    Rows have `image_id`, `image` (``{"path", "bytes"}``), `captions` and `split`. An image is a
    row; captions of one image in several rows stay apart.

    Args:
        source: tar files (see `tar_files`), a folder of them, a hub id ("user/name"), or a folder
            that `datasets` reads.
        split: split of a hub data set or folder, by its name there; tar files that are named are
            "train", "val" or "test", whichever this says, and of a folder of them those of this
            split are taken.
        skip_bad: leave out samples without picture, captions or id, or whose text or json cannot be
            read, and say how many of each shard.

    Attributes:
        names: (shards,) the name of each in errors.
        skipped: the errors of samples left out so far.

    Raises:
        FileNotFoundError: no such files, nor a data set that the hub gives.
        ValueError: an unreadable source; no such split.
    """

    def __init__(
        self, source: str | Path | list[str], split: str = "train", skip_bad: bool = False
    ) -> None:
        self.split, self.skip_bad = split, skip_bad
        self.skipped: dict[str, None] = {}
        self.name = ", ".join(map(str, source)) if isinstance(source, list) else str(source)
        files = tar_files(source)
        if files is None and (below := tars_below(Path(self.name))):
            splits = by_split(below, Path(self.name))
            if split not in splits:
                raise ValueError(f"{self.name}: no tar files of {split}; there are {[*splits]}")
            files = splits[split]
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
        name, table = self.names[shard], self._table
        samples = read_tar(name) if table is None else table.shard(len(self), shard)
        first = 0 if self.skip_bad else skip  # rows that are given count, not samples
        rows, bad = 0, []
        for number, sample in enumerate(islice(_naming(samples, name), first, None), first):
            try:
                row = self._row(sample, shard, number)
            except (KeyError, ValueError) as error:
                if not self.skip_bad:
                    raise
                bad.append(str(error.args[0]))
                continue
            rows += 1
            if first + rows > skip:
                yield row
        if bad:
            self.skipped |= dict.fromkeys(bad)
            warnings.warn(f"{name}: {len(bad)} sample(s) left out: {bad[0]}", stacklevel=2)

    def _row(self, sample: Row, shard: int, number: int) -> StreamRow:
        name, tar = self.names[shard], self._table is None
        where = f"{name}, row {number}"
        if tar:
            where = f"{where} ({str(sample['__key__'])[:80]})"
            try:
                sample = decoded(sample)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
        key = next((key for key in IMAGE_ID if key in sample), None)
        unnamed = f"{self.split}-{shard}-{number}"
        image_id = unnamed if key is None else text_id(sample[key], f"{where}, {key}")
        if not tar:
            where = f"{where} ({image_id[:80]})"
        texts = _first(sample, TEXTS, where, "captions")
        if isinstance(texts, dict):  # of KEY.json
            texts = _first(texts, CAPTIONS, where, "captions")
        elif tar and isinstance(texts, str):  # KEY.txt: a caption a line
            texts = [line for line in texts.splitlines() if line.strip()] or [texts]
        return {
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
    """Return the first cell that is there, by its name, or by the last suffix of it.

    Raises:
        KeyError: there is none.
        ValueError: several have one last suffix, as of KEY.left.jpg and KEY.right.jpg.
    """
    for name in names:
        if row.get(name) is not None:
            return row[name]
    for name in names:
        found = [k for k in row if k.endswith(f".{name}") and row[k] is not None]
        if len(found) > 1:
            raise ValueError(
                f"{where}: {what} in {', '.join(found)}; a key ends at the first dot of a name"
            )
        if found:
            return row[found[0]]
    beside = "; members of one key lie side by side in a tar file" if "__key__" in row else ""
    raise KeyError(f"{where}: no {what}; there are {', '.join(row)}{beside}")
