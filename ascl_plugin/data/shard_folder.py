"""Tar files of a folder as splits, pictures embedded: what `Shards` streams, kept in a table."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from functools import partial

import datasets
from datasets.exceptions import DatasetGenerationError

from ascl_plugin.data.rows import ROW, SPLITS, refuse_duplicates
from ascl_plugin.data.shards import Shards
from ascl_plugin.interfaces import Row

_LEFT_OUT = "left out"  # split of a row that holds the error of a sample


def read_shards(files: Mapping[str, list[str]], skip_bad: bool = False) -> datasets.DatasetDict:
    """Read tar files as `Shards` does, into tables in the cache of `datasets`.

    Raises:
        FileNotFoundError, KeyError, ValueError: as of `Shards`; a key that occurs twice in a split;
            no sample that is whole.
    """
    found = {}
    for split, paths in files.items():
        table = _table(
            paths=paths,
            split=split,
            skip_bad=skip_bad,
            changed=[os.stat(path).st_mtime_ns for path in paths],  # another table then
        )
        named = table["split"][:]
        rows = table
        if lacking := [number for number, name in enumerate(named) if name == _LEFT_OUT]:
            (first,) = table[lacking[0]]["captions"]
            if len(lacking) == len(table):
                raise ValueError(f"split {split}: no sample is whole: {first}")
            count = len(lacking)
            warnings.warn(f"split {split}: {count} sample(s) left out: {first}", stacklevel=2)
            rows = table.select([n for n, name in enumerate(named) if name == split])
        refuse_duplicates(
            rows["image_id"][:],
            f"split {split}",
            partial(_picture_path, rows),
        )
        found[split] = rows
    return datasets.DatasetDict({name: found[name] for name in SPLITS if name in found})


def _picture_path(rows: datasets.Dataset, number: int) -> str:
    return rows[number]["image"]["path"]


def _table(**options: object) -> datasets.Dataset:
    try:
        return datasets.Dataset.from_generator(_rows, features=ROW, gen_kwargs=options)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError | KeyError | OSError):
            raise error.__cause__ from None
        raise


def _rows(paths: list[str], split: str, skip_bad: bool, changed: list[int]) -> Iterator[Row]:
    shards = Shards(paths, split, skip_bad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said once, for all shards
        for row in shards.share():
            ids = [f"{row['image_id']}#{k}" for k in range(len(row["captions"]))]
            yield {**row, "caption_ids": ids}
    for error in shards.skipped:
        yield {
            "image_id": "", "image": None, "captions": [error], "caption_ids": [],
            "split": _LEFT_OUT,
        }  # fmt: skip
