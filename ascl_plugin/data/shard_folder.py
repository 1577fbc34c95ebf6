"""Tar files of a folder as splits, pictures embedded: what `Shards` streams, kept in a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import datasets

from ascl_plugin.data.rows import ROW, SPLITS, refuse_duplicates, split_named
from ascl_plugin.data.shards import Shards
from ascl_plugin.interfaces import Row


def split_tars(root: Path) -> dict[str, list[Path]]:
    """Return tar files by split: of folders named after one, or by their names; else "train"."""
    found: dict[str, list[Path]] = {}
    for path in sorted([*root.glob("*.tar"), *root.glob("*/*.tar")]):
        names = [path.parent.name] if path.parent != root else []
        found.setdefault(_split_of([*names, *path.stem.replace("_", "-").split("-")]), []).append(
            path
        )
    return found


def _split_of(names: list[str]) -> str:
    for name in names:
        try:
            return split_named(name, "")
        except ValueError:
            continue
    return "train"


def read_shards(files: Mapping[str, list[Path]]) -> datasets.DatasetDict:
    """Read tar files as `Shards` does, into tables in the cache of `datasets`.

    Raises:
        FileNotFoundError, KeyError, ValueError: as of `Shards`; a key that occurs twice in a split.
    """
    found = {}
    for split, paths in files.items():
        rows = datasets.Dataset.from_generator(
            _rows,
            features=ROW,
            gen_kwargs={
                "paths": [str(path) for path in paths],
                "split": split,
                "changed": [path.stat().st_mtime_ns for path in paths],  # another table then
            },
        )
        refuse_duplicates(rows["image_id"][:], f"{paths[0].parent}, split {split}")
        found[split] = rows
    return datasets.DatasetDict({name: found[name] for name in SPLITS if name in found})


def _rows(paths: list[str], split: str, changed: list[int]) -> Iterator[Row]:
    for row in Shards(paths, split).share():
        ids = [f"{row['image_id']}#{k}" for k in range(len(row["captions"]))]
        yield {**row, "caption_ids": ids}
