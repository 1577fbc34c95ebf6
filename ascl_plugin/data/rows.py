"""The row every source of data is read into, and what may be asked of a split of such rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

try:
    import datasets
except ImportError as error:
    raise ImportError('reading data needs datasets: pip install "ascl-plugin[recipes]"') from error

#: One image a row. Images may have any number of captions, each its own.
ROW = datasets.Features(
    {
        "image_id": datasets.Value("string"),
        "image": datasets.Image(decode=False),  # {"path": ..., "bytes": ...}, see data/images.py
        "captions": datasets.List(datasets.Value("string")),
        "caption_ids": datasets.List(datasets.Value("string")),
        "split": datasets.Value("string"),
    }
)

#: The splits there are, and the names that other sources give them.
SPLITS = {
    "train": ("train", "restval", "training"),
    "val": ("val", "validation", "dev", "valid"),
    "test": ("test", "testing"),
}


def split_named(name: str, where: str) -> str:
    """Ours ("train", "val" or "test") for a source's name of a split.

    Raises:
        ValueError: a name that stands for none of the three; `where` says which entry has it.
    """
    for ours, theirs in SPLITS.items():
        if str(name).lower() in theirs:
            return ours
    known = ", ".join(n for names in SPLITS.values() for n in names)
    raise ValueError(f"{where}: unknown split {name!r}; known are {known}")


def clean_captions(captions: Sequence[Any], where: str) -> list[str]:
    """The captions of one image, stripped of surrounding white space.

    Raises:
        ValueError: no captions, an empty one, or one that is no string; `where` names the file and
            the image.
    """
    if not len(captions):
        raise ValueError(f"{where}: the image has no captions")
    clean = []
    for index, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise ValueError(f"{where}: caption {index} is {caption!r}, expected a string")
        if not caption.strip():
            raise ValueError(f"{where}: caption {index} is empty; remove it from the file")
        clean.append(caption.strip())
    return clean


def refuse_outside(name: Any, where: str) -> str:
    """`name` itself, a relative path that stays below the folder it is joined to.

    Raises:
        ValueError: an absolute path, one with ``..`` in it, or no string at all.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: expected the path of an image, got {name!r}")
    windows = PureWindowsPath(name)
    if windows.drive or windows.root or PurePosixPath(name).is_absolute() or ".." in windows.parts:
        raise ValueError(f"{where}: path {name!r} leaves the data root; expected one below it")
    return name


def refuse_duplicates(image_ids: Iterable[str], where: str) -> None:
    """Nothing, when all ids differ.

    Raises:
        ValueError: an id that occurs twice, and both its positions.
    """
    first: dict[str, int] = {}
    for position, image_id in enumerate(image_ids):
        if first.setdefault(image_id, position) != position:
            raise ValueError(
                f"{where}: image id {image_id!r} occurs twice, "
                f"in entries {first[image_id]} and {position}"
            )


def to_dataset(rows: Sequence[dict[str, Any]]) -> datasets.Dataset:
    """Rows that hold the five fields of `ROW`, as one split."""
    return datasets.Dataset.from_dict({f: [row[f] for row in rows] for f in ROW}, features=ROW)


def require_splits(
    dataset: datasets.DatasetDict, names: Sequence[str], data_root: object
) -> datasets.DatasetDict:
    """`dataset` itself, once it is known to have rows for every split in `names`.

    Raises:
        ValueError: a split is not there; the message says which are.
    """
    there = [name for name, split in dataset.items() if len(split)]
    lacking = [name for name in names if name not in there]
    if lacking:
        raise ValueError(
            f"{data_root}: no {' or '.join(lacking)} split; it has {', '.join(there) or 'none'}"
        )
    return dataset


def caption_to_image(dataset: datasets.Dataset) -> tuple[list[str], np.ndarray]:
    """All captions of a split in one list, and the row of the image each belongs to.

    Returns:
        texts: T strings, image by image in the order of the rows.
        index: (T,) int64, texts[t] describes dataset[index[t]].

    >>> from ascl_plugin.data.rows import to_dataset
    >>> row = {"image": None, "caption_ids": [], "split": "val"}
    >>> rows = [{**row, "image_id": "a", "captions": ["x", "y"]}]
    >>> rows += [{**row, "image_id": "b", "captions": ["z"]}]
    >>> caption_to_image(to_dataset(rows))
    (['x', 'y', 'z'], array([0, 0, 1]))
    """
    captions = dataset["captions"][:]
    counts = np.array([len(c) for c in captions], dtype=np.int64)
    index = np.repeat(np.arange(len(captions), dtype=np.int64), counts)
    return [text for several in captions for text in several], index
