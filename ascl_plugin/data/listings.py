"""Files that list pictures and captions: CSV, TSV, JSONL, JSON lists, token files, Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ascl_plugin.data.image_paths import USUAL_FOLDERS, ImagePaths
from ascl_plugin.data.json_file import load_json
from ascl_plugin.data.rows import SPLITS, clean_captions, split_in, split_named, text_id, to_dataset
from ascl_plugin.interfaces import Row

#: Usual names of a column; the first that is present is taken.
IMAGE = (
    "image", "file_name", "filename", "filepath", "file_path", "image_path", "image_name", "path",
    "img", "picture", "image_file",
)  # fmt: skip
CAPTIONS = (
    "captions", "caption", "sentences_raw", "sentences", "texts", "text", "title", "comment", "raw",
)  # fmt: skip
IMAGE_ID = ("image_id", "img_id", "imgid", "cocoid", "id")
CAPTION_ID = ("caption_ids", "caption_id", "sentids", "sentid")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".token", ".txt", ".parquet")
_NUMBERED = re.compile(r"(?:captions?|sentences?|texts?)_?(\d+)")
_TOKEN = re.compile(r"([^\t]+?)#[a-z]*(\d+)\t(.*)")
_LISTED = re.compile(r"(train|val|dev|test)\w*images\.txt$", re.IGNORECASE)  # Flickr_8k.devImages
_FLOAT = re.compile(r"-?\d+\.0+")
_UNCUT = re.compile(r"\s*\d+\s+(\S.*)")  # "4   A dog": a line of Flickr30k's table lacks its bar
MOST = 100  # files of a folder that may list pictures
_HEAD = 2**16  # bytes that tell a file's columns


@dataclass
class _Listed:
    """One image, as its rows say."""

    path: str
    split: str
    captions: list[object] = field(default_factory=list)
    caption_ids: list[str] = field(default_factory=list)


def find_listings(root: Path, image_root: Path | None = None) -> list[Path]:
    """Return the files of a folder, and of those in it, that list pictures; not split lists."""
    places = [root, *sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != ".")]
    return [path for place in places for path in _of(place, image_root, root)]


def _of(folder: Path, image_root: Path | None, root: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.name[0] != "." and _suffix(e.name) in SUFFIXES)
    if len(names) > MOST:  # a text beside each picture
        return []
    return [folder / name for name in names if is_listing(folder / name, image_root, root)]


def is_listing(path: Path, image_root: Path | None = None, root: Path | None = None) -> bool:
    """Return True if the first row of a file names a picture file and a caption.

    A Parquet file is one if that picture is found, too; `read_table` reads all others.
    """
    if path.name.startswith(("dataset_info", "dataset_dict", "state.json")) or not path.is_file():
        return False
    try:
        row = next(_rows(path, head=True), None)
    except (ValueError, OSError, KeyError, pa.ArrowException):
        return False
    if row is None or _column(row, IMAGE) is None or not _caption_columns(row):
        return False
    if _suffix(path) != ".parquet":
        return True
    finders = [ImagePaths(place) for place in _roots(path, image_root, root or path.parent)]
    try:
        return bool(_find(finders, _picture_name(row, str(path)), str(path), ""))
    except (FileNotFoundError, ValueError):
        return False


def refuse_lists(root: Path) -> None:
    """Raise what keeps a table, or those of a folder and its folders, from listing pictures.

    Raises:
        KeyError, ValueError: no column for pictures or captions; a file that cannot be parsed.
    """
    for path in [root] if root.is_file() else sorted([*root.glob("*.*"), *root.glob("*/*.*")]):
        if _suffix(path) in (".csv", ".tsv", ".jsonl", ".token"):
            row = next(_rows(path, head=True), None)
            if row is not None:
                _captions(row, f"{path}: row 0")
                _picture_name(row, f"{path}: row 0")


def read_listings(
    paths: list[Path], image_root: Path | None, root: Path, pictures: bool = True
) -> datasets.DatasetDict:
    """Read listings of one data set.

    Rows of one image are joined: by an id column, else by the picture's name. The split is a column
    ``split``, else in the name of the file or of its folder, else in lists of names beside it
    (``Flickr_8k.trainImages.txt``); without any, "train".

    Args:
        paths: files that `is_listing`.
        image_root: folder of the pictures; None: the file's own, or `root`.
        root: the data root.
        pictures: look for the pictures; if False, their paths are bare names.

    Raises:
        FileNotFoundError: a picture that is nowhere to be found; the message lists the folders.
        KeyError, ValueError: a row without picture or caption; an id that is missing, or of two
            pictures; an unknown split; captions that `clean_captions` refuses.
    """
    found: dict[str, dict[str, _Listed]] = {}
    for path in paths:
        lists = _split_lists(path.parent)
        named = split_in(path.stem) or split_in(path.parent.name if path.parent != root else "")
        below = os.path.relpath(path.parent, root) if path.is_relative_to(root) else ""
        below = "" if below == "." else below
        finders = [ImagePaths(r if pictures else None) for r in _roots(path, image_root, root)]
        for number, row in enumerate(_rows(path)):
            where = f"{path}: row {number}"
            name = _picture_name(row, where)
            split = row.get("split") or lists.get(name) or named or "train"
            split = split_named(str(split), where)
            key = next((k for k in IMAGE_ID if k in row), None)
            # of metadata.csv in train/, as of one in test/: names are those below the data root
            image_id = os.path.join(below, name)
            if key is not None:
                image_id = text_id(_whole(row[key]), f"{where}: {key}")
            mine = found.setdefault(split, {})
            if image_id not in mine:
                mine[image_id] = _Listed(_find(finders, name, where, split), split)
            listed = mine[image_id]
            if not listed.path.endswith(name):
                raise ValueError(
                    f"{where}: id {image_id!r} is of picture {name!r} here, and of {listed.path!r} "
                    "in an earlier row"
                )
            captions = _captions(row, where)
            start = len(listed.captions)
            given = _values(next((row[k] for k in CAPTION_ID if row.get(k) is not None), []))
            if len(given) != len(captions):
                given = [f"{image_id}#{start + i}" for i in range(len(captions))]
            listed.captions += captions
            listed.caption_ids += [text_id(value, where) for value in given]
    return datasets.DatasetDict(
        {k: _dataset(found[k], str(paths[0].parent)) for k in SPLITS if k in found}
    )


def _dataset(images: Mapping[str, _Listed], where: str) -> datasets.Dataset:
    return to_dataset(
        [
            {
                "image_id": image_id,
                "image": {"path": listed.path, "bytes": None},
                "captions": clean_captions(listed.captions, f"{where}: image {image_id}"),
                "caption_ids": listed.caption_ids,
                "split": listed.split,
            }
            for image_id, listed in images.items()
        ]
    )


def _roots(path: Path, image_root: Path | None, root: Path) -> list[Path]:
    given = [image_root] if image_root is not None else [path.parent, root]
    return list(dict.fromkeys(given))


def _find(finders: list[ImagePaths], name: str, where: str, split: str) -> str:
    error: FileNotFoundError | None = None
    for finder in finders:
        folders = ("", *USUAL_FOLDERS, *_below(finder.root))
        try:
            return finder.find(name, folders, where, f"{split}/{os.path.dirname(name)}")
        except FileNotFoundError as missing:
            error = error or missing
    assert error is not None
    raise error


def _below(root: Path | None, known: dict[Path, tuple[str, ...]] = {}) -> tuple[str, ...]:  # noqa: B006
    if root is None or not root.is_dir():
        return ()
    if root not in known:
        known[root] = tuple(sorted(p.name for p in root.iterdir() if p.is_dir())[:50])
    return known[root]


def _split_lists(folder: Path) -> dict[str, str]:
    """Return the split of each name in lists such as ``Flickr_8k.trainImages.txt``."""
    found = {}
    for path in folder.glob("*.txt"):
        if named := _LISTED.search(path.name):
            for line in path.read_text(encoding="utf-8-sig").split("\n"):
                found[line.strip()] = named[1].lower()
    return found


def _suffix(path: str | Path) -> str:
    return os.path.splitext(path)[1].lower()


def _column(row: Row, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if isinstance(row.get(name), str)), None)


def _caption_columns(row: Row) -> list[str]:
    numbered = [name for name in row if _NUMBERED.fullmatch(name)]
    if numbered:
        return sorted(numbered, key=lambda name: int(_NUMBERED.fullmatch(name)[1]))  # type: ignore[index]
    return [name for name in CAPTIONS if name in row][:1]


def _picture_name(row: Row, where: str) -> str:
    name = _column(row, IMAGE)
    if name is None or not row[name].strip():
        raise KeyError(f"{where}: no name of a picture; it has {', '.join(map(str, row))}")
    return row[name].strip()


def _captions(row: Row, where: str) -> list[object]:
    columns = _caption_columns(row)
    if not columns:
        raise KeyError(f"{where}: no caption; it has {', '.join(map(str, row))}")
    found = [value for name in columns for value in _values(row[name])]
    if len(columns) > 1:  # caption_0..4 of which an image may have fewer
        found = [value for value in found if value not in (None, "")]
    return [c.get("raw", c.get("caption")) if isinstance(c, dict) else c for c in found]


def _values(cell: object) -> list[object]:
    """Return a list as it is, a list written as text (of a CSV) parsed, another value alone."""
    if isinstance(cell, str) and cell.startswith("[") and cell.endswith("]"):
        try:
            cell = json.loads(cell)
        except ValueError:
            return [cell]
    return list(cell) if isinstance(cell, list) else [cell]


def _whole(value: object) -> object:
    """Return the id of a CSV without the ``.0`` that a gap in its column brought."""
    return value.partition(".")[0] if isinstance(value, str) and _FLOAT.fullmatch(value) else value


def _rows(path: Path, head: bool = False) -> Iterator[Row]:
    """Yield the rows of a file as mappings; of a JSON file also if it is none of ours, for errors.

    Args:
        path: file.
        head: read its beginning alone, where the format allows.
    """
    if _suffix(path) == ".parquet":
        schema = pq.read_schema(path)
        kinds = [schema.field(n).type for n in schema.names]
        names = [n for n, kind in zip(schema.names, kinds, strict=True) if pa.types.is_string(kind)]
        embedded = any(pa.types.is_struct(k) and k.get_field_index("bytes") >= 0 for k in kinds)
        if set(names) & {*IMAGE} and not embedded:
            file = pq.ParquetFile(path)
            for batch in file.iter_batches(1 if head else 4096):
                yield from batch.to_pylist()
        return
    if _suffix(path) == ".json":
        if head and path.stat().st_size:
            with open(path, encoding="utf-8-sig") as opened:
                if opened.read(1) != "[":
                    return
        content = load_json(path)
        yield from (
            (row for row in content if isinstance(row, dict)) if isinstance(content, list) else ()
        )
        return
    with open(path, encoding="utf-8-sig", newline="") as opened:
        try:
            text = opened.read(_HEAD) if head else opened.read()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: byte {error.start} is no UTF-8") from error
    yield from _parsed(path, text)


def _parsed(path: Path, text: str) -> Iterator[Row]:
    lines = text.split("\n")
    if _suffix(path) == ".jsonl":
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{path}: line {number} is not JSON: {error}") from error
        return
    if _TOKEN.fullmatch(lines[0].rstrip("\r")):
        for number, line in enumerate(lines, 1):
            if line.strip():
                token = _TOKEN.fullmatch(line.rstrip("\r"))
                if token is None:
                    raise ValueError(f"{path}: line {number}: expected NAME#NUMBER, tab, caption")
                yield {"image": token[1], "caption": token[3]}
        return
    delimiter = max("\t|,;", key=lines[0].count)
    strip: Callable[[str], str] = str.strip if delimiter == "|" else str
    lines_of = io.StringIO(text)
    if delimiter in ",;":
        reader = csv.reader(lines_of, delimiter=delimiter)
    else:
        reader = csv.reader(lines_of, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    header = [name.strip().lower() for name in next(reader, [])]
    for cells in reader:
        if not cells:
            continue
        values = [strip(cell) for cell in cells]
        if len(values) == len(header) - 1 and (uncut := _UNCUT.fullmatch(values[-1])):
            values = [*values[:-1], "", uncut[1]]
        if len(values) != len(header):
            raise ValueError(
                f"{path}: line {reader.line_num} has {len(values)} cells, its header {len(header)}"
            )
        yield dict(zip(header, values, strict=True))
