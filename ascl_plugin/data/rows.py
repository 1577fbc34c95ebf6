"""The row that every source of data is read into, and checks of its parts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from ascl_plugin.interfaces import Row

try:
    import datasets
    import pyarrow as pa
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

#: Characters of a caption at most: the longest of detailed descriptions have some 10,000.
MAX_CHARACTERS = 100_000
_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_PLAIN = re.compile(r"[\w.-][\w./-]*", re.ASCII)
_LONGEST_PATH = 1000  # of an image, below the folder of images

#: Splits, and the names that other sources give them.
SPLITS = {
    "train": ("train", "restval", "training"),
    "val": ("val", "validation", "dev", "valid"),
    "test": ("test", "testing"),
}

_SPLIT = re.compile(
    r"(?<![a-z])(train|training|restval|val|valid|validation|dev|test|testing)(?![a-z])"
)


def split_in(name: str) -> str | None:
    """Return the split that the name of a file or folder tells, None if it tells none.

    >>> split_in("coco_val2014-00003"), split_in("evaluation")
    ('val', None)
    """
    found = _SPLIT.search(name.lower())
    return split_named(found[1], name) if found else None


def split_named(name: str, where: str) -> str:
    """Return "train", "val" or "test" for a source's name of a split.

    Raises:
        ValueError: an unknown name; `where` names the entry that has it.
    """
    for ours, theirs in SPLITS.items():
        if str(name).lower() in theirs:
            return ours
    known = ", ".join(n for names in SPLITS.values() for n in names)
    raise ValueError(f"{where}: unknown split {name!r}; known are {known}")


def clean_captions(captions: Sequence[object], where: str) -> list[str]:
    """Return the captions of one image, stripped of surrounding white space, each in one line.

    Line breaks within a caption become spaces.

    Raises:
        ValueError: no captions; an empty one; no string, or none that UTF-8 holds; more than
            `MAX_CHARACTERS`; `where` names the file and the image.
    """
    if not len(captions):
        raise ValueError(f"{where}: the image has no captions")
    clean = []
    for index, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise ValueError(f"{where}: caption {index} is {repr(caption)[:80]}, expected a string")
        if not caption.strip():
            raise ValueError(f"{where}: caption {index} is empty; remove it from the file")
        if len(caption) > MAX_CHARACTERS:
            raise ValueError(
                f"{where}: caption {index} has {len(caption)} characters, {MAX_CHARACTERS} at most"
            )
        if not caption.isascii():
            refuse_halves(caption, f"{where}: caption {index}")
        caption = caption.strip()  # a break is no printable character
        clean.append(caption if caption.isprintable() else _BREAKS.sub(" ", caption))
    return clean


def refuse_halves(text: str, where: str) -> str:
    """Return `text`, every character of which can be written.

    Raises:
        ValueError: half a surrogate pair in it, as JSON's ``"\\ud800"``, which no UTF-8 holds.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: character {error.start} is half a surrogate pair, {text[error.start]!r}"
        ) from error
    return text


def text_id(value: object, where: str) -> str:
    """Return an id as a string; a whole float is a number that a gap in its column made a float.

    >>> text_id(7.0, "row 3")
    '7'

    Raises:
        ValueError: missing (null, NaN, empty); neither a number nor text that can be written; a
            float too large to be exact.
    """
    if type(value) is int:  # nearly all: the rest of this is for others
        return str(value)
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{where}: the id is missing; give every row one, or remove the column")
    if isinstance(value, float) and value.is_integer():
        if abs(value) >= 2**53:
            raise ValueError(f"{where}: id {value!r} is a float, no longer exact; write it as text")
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where}: expected an id, got {repr(value)[:80]}")
    return refuse_halves(str(value), where)


def refuse_outside(name: object, where: str) -> str:
    """Return `name`, a relative path that stays below the folder it is joined to.

    Links are checked by `refuse_link`.

    Raises:
        ValueError: an absolute path, one with ``..``, a NUL or half a surrogate pair in it, one of
            more than 1000 characters, or no string.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: expected the path of an image, got {repr(name)[:80]}")
    if len(name) <= _LONGEST_PATH and _PLAIN.fullmatch(name) and ".." not in name:
        return name
    if len(name) > _LONGEST_PATH:
        raise ValueError(f"{where}: a path has {len(name)} characters, {_LONGEST_PATH} at most")
    if "\0" in refuse_halves(name, where):
        raise ValueError(f"{where}: path {name!r} has a NUL in it")
    windows = PureWindowsPath(name)
    if windows.drive or windows.root or PurePosixPath(name).is_absolute() or ".." in windows.parts:
        raise ValueError(f"{where}: path {name!r} leaves the data root; expected one below it")
    return name


def refuse_link(folder: str | Path, name: str, where: str) -> str:
    """Return `name`, a path below `folder`, which may itself be a link.

    Raises:
        ValueError: a link on the way, or at its end, leaves the folder.
    """
    path = str(folder)
    for part in name.split("/"):
        if part in ("", "."):
            continue
        path = os.path.join(path, part)
        if os.path.islink(path):
            inside = os.path.realpath(folder)
            if os.path.commonpath([inside, os.path.realpath(path)]) != inside:
                raise ValueError(
                    f"{where}: path {name!r} leaves {folder} by a link, to "
                    f"{os.path.realpath(path)}; copy the target, or let image_root= be there"
                )
    return name


def refuse_duplicates(
    image_ids: Iterable[str], where: str, place: Callable[[int], str] = "entry {}".format
) -> None:
    """Check that all ids differ.

    Args:
        image_ids: ids.
        where: file, for the error.
        place: name of a position in it.

    Raises:
        ValueError: an id that occurs twice; the message has both positions.
    """
    first: dict[str, int] = {}
    for position, image_id in enumerate(image_ids):
        if first.setdefault(image_id, position) != position:
            raise ValueError(
                f"{where}: image id {image_id!r} occurs twice, "
                f"in {place(first[image_id])} and {place(position)}"
            )


def to_dataset(rows: Sequence[Row]) -> datasets.Dataset:
    """Return rows that hold the five fields of `ROW` as one split."""
    columns = {name: [row[name] for row in rows] for name in ROW}
    table = pa.Table.from_pydict(columns, schema=ROW.arrow_schema)  # `from_dict` opens each picture
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=ROW.copy()))


def divided(
    dataset: datasets.DatasetDict, val_fraction: float, test_fraction: float
) -> datasets.DatasetDict:
    """Return a data set of one split as three, by a hash of each image id; others unchanged.

    An image stays in its split whatever is added to the data.

    Raises:
        ValueError: fractions that are no shares, or leave nothing for training; a data set that has
            splits already.
    """
    if not val_fraction and not test_fraction:
        return dataset
    if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
        raise ValueError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction}: expected shares whose "
            "sum is below 1"
        )
    if len(dataset) != 1:
        raise ValueError(
            f"val_fraction and test_fraction are for data of one split; there are "
            f"{', '.join(dataset)}"
        )
    (rows,) = dataset.values()
    chosen: dict[str, list[int]] = {name: [] for name in SPLITS}
    for place, image_id in enumerate(rows["image_id"][:]):
        share = int.from_bytes(blake2b(image_id.encode(), digest_size=8).digest(), "big") / 2**64
        late = "val" if share < val_fraction + test_fraction else "train"
        chosen["test" if share < test_fraction else late].append(place)
    found = {}
    for name, places in chosen.items():
        if places:
            part = rows.select(places).remove_columns("split")
            found[name] = part.add_column("split", [name] * len(places)).select_columns(
                rows.column_names
            )
    return datasets.DatasetDict(found)


def require_splits(
    dataset: datasets.DatasetDict, names: Sequence[str], data_root: object
) -> datasets.DatasetDict:
    """Return `dataset`, which has rows for every split in `names`.

    Raises:
        ValueError: a split is lacking; the message lists those that are there.
    """
    there = [name for name, split in dataset.items() if len(split)]
    lacking = [name for name in names if name not in there]
    if lacking:
        raise ValueError(
            f"{data_root}: no {' or '.join(lacking)} split; it has {', '.join(there) or 'none'}"
            + ("; --val_fraction and --test_fraction divide it" if len(there) == 1 else "")
        )
    return dataset


def caption_to_image(dataset: datasets.Dataset) -> tuple[list[str], np.ndarray]:
    """Return all captions of a split in one list, and the row of the image each belongs to.

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
