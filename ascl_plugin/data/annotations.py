"""Caption files: Karpathy's JSON (COCO, Flickr30K, Flickr8k) and COCO's own captions JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets

from ascl_plugin.data.rows import (
    SPLITS,
    clean_captions,
    refuse_duplicates,
    refuse_link,
    refuse_outside,
    split_named,
    text_id,
    to_dataset,
)
from ascl_plugin.npy_file import map_npy

# the folders that the archives of Flickr30K and Flickr8k unpack into
_ARCHIVES = ("flickr30k-images", "Flicker8k_Dataset")
# folders that people link to the one copy they have, wherever that lies
_USUAL = re.compile(r"(train|val|test)20\d\d")


def read_karpathy(
    path: str | Path, image_root: str | Path | None = None, pictures: bool = True
) -> datasets.DatasetDict:
    """Karpathy's JSON: ``{"images": [{"filename", "split", "sentences": [{"raw"}]}]}``.

    An image's id is its ``cocoid``, where there is none its file name; a caption's is its
    ``sentid``, else "image id#number". ``restval`` joins ``train``. Images are found in
    `image_root` under ``filepath/``, ``images/``, ``images/filepath/``, ``flickr30k-images/``,
    ``Flicker8k_Dataset/`` or nothing, and COCO's in ``train2017/`` and ``val2017/`` under the names
    they have there.

    Args:
        path: the JSON file.
        image_root: folder of the images; the file's own by default.
        pictures: whether the images are looked for; if not, their paths are bare names.

    Returns:
        The splits the file has, in its order of images; rows as `ascl_plugin.data.rows.ROW`.

    Raises:
        FileNotFoundError: no such file, or the first image of a split is nowhere to be found.
        KeyError: an entry lacks a field.
        ValueError: no JSON; an unknown split; an image without captions or with one that
            `clean_captions` refuses; an image id that occurs twice; an image path that leaves
            `image_root`, or does so by a link.
    """
    path = Path(path)
    images = _Images(path, Path(image_root or path.parent), pictures)
    rows = [images.row(index, entry) for index, entry in enumerate(_entries(path, "images"))]
    refuse_duplicates((row["image_id"] for row in rows), str(path))
    splits = {name: [row for row in rows if row["split"] == name] for name in SPLITS}
    return datasets.DatasetDict({k: to_dataset(v) for k, v in splits.items() if v})


def read_coco_captions(
    path: str | Path,
    image_root: str | Path | None = None,
    split: str | None = None,
    ids: Sequence[int] | str | Path | None = None,
    pictures: bool = True,
) -> datasets.Dataset:
    """COCO's captions JSON: images of `id, file_name`, annotations of `image_id, caption`.

    Images are found in `image_root` under ``val2014/`` (whatever split and year the file's name
    tells), ``images/val2014/``, ``images/`` or nothing.

    Args:
        path: the JSON file.
        image_root: folder of the images; by default the file's own, or the one above when that is
            called ``annotations``.
        split: "train", "val" or "test"; by default what the file's name says.
        ids: image ids to keep, in this order; or a file of them, one a line or `.npy`.
        pictures: as of `read_karpathy`.

    Returns:
        One split, in the order of `ids` or of the file; rows as `ascl_plugin.data.rows.ROW`.

    Raises:
        FileNotFoundError: no such file, or the first image is nowhere to be found.
        KeyError: an entry lacks a field, or an id is not in the file.
        ValueError: no JSON; a name that tells no split; an image without captions or with one that
            `clean_captions` refuses; an image id that occurs twice; an image path that leaves
            `image_root`, or does so by a link.
    """
    path = Path(path)
    told = re.search(r"(train|val|test)(\d{4})?", path.stem)
    if split is None and told is None:
        raise ValueError(f"{path}: the name tells neither train, val nor test; split= says it")
    split = split_named(split or told[1], str(path))  # type: ignore[index]
    if image_root is None:
        image_root = path.parent.parent if path.parent.name == "annotations" else path.parent

    content = _load(path)
    names: dict[int, str] = {}
    entries = _list_of(content, "images", path)
    for index, entry in enumerate(entries):
        where = f"{path}: images[{index}]"
        image_id = _id(entry, "id", where)
        names[image_id] = refuse_outside(_field(entry, "file_name", where), where)
    refuse_duplicates((str(entry["id"]) for entry in entries), str(path))

    captions: dict[int, list[tuple[str, Any]]] = {image_id: [] for image_id in names}
    caption_ids = set()
    for index, entry in enumerate(_list_of(content, "annotations", path)):
        where = f"{path}: annotations[{index}]"
        image_id = _id(entry, "image_id", where)
        if image_id not in captions:
            raise KeyError(f"{where}: image_id {image_id} is not among the file's images")
        caption_id = entry.get("id", f"{image_id}#{len(captions[image_id])}")
        text_id(caption_id, where)
        caption_ids.add(caption_id)
        captions[image_id].append((str(caption_id), _field(entry, "caption", where)))

    kept = list(names) if ids is None else _ids(ids)
    for image_id in kept:
        if image_id not in names:
            hint = " (it is the id of a caption)" if image_id in caption_ids else ""
            raise KeyError(f"{path}: no image with id {image_id}{hint}")
    refuse_duplicates(map(str, kept), f"{path}, list of ids")
    if not kept:
        return to_dataset([])

    folder = Path()
    year = f"{told[1]}{told[2] or ''}" if told else split
    folders = (year, f"images/{year}", "images", "")
    if pictures:
        folder = find_folder(Path(image_root), names[kept[0]], folders, f"{path}: image {kept[0]}")
    return to_dataset(
        [
            {
                "image_id": str(image_id),
                "image": {"path": _below(folder, names[image_id], pictures, path), "bytes": None},
                "captions": clean_captions(
                    [text for _, text in captions[image_id]], f"{path}: image {image_id}"
                ),
                "caption_ids": [caption_id for caption_id, _ in captions[image_id]],
                "split": split,
            }
            for image_id in kept
        ]
    )


def is_karpathy(path: str | Path) -> bool:
    """True for Karpathy's JSON, False for COCO's.

    Raises:
        FileNotFoundError, ValueError: no such file, or no JSON.
    """
    images = _entries(Path(path), "images")
    return bool(images) and isinstance(images[0], dict) and "sentences" in images[0]


class _Images:
    """Rows of the entries of one Karpathy JSON."""

    def __init__(self, path: Path, image_root: Path, pictures: bool):
        self.path, self.image_root, self.pictures = path, image_root, pictures
        self.folders: dict[tuple[str, str], Path | None] = {}
        self.renamed: Coco2017Names | None = None

    def row(self, index: int, entry: Any) -> dict[str, Any]:
        where = f"{self.path}: images[{index}]"
        name = refuse_outside(_field(entry, "filename", where), where)
        image_id = text_id(entry.get("cocoid", name), where)
        split = split_named(_field(entry, "split", where), where)
        sentences = _list_of(entry, "sentences", where)
        captions = [_field(s, "raw", f"{where}.sentences[{i}]") for i, s in enumerate(sentences)]
        ids = [
            text_id(s.get("sentid", f"{image_id}#{i}"), f"{where}.sentences[{i}]")
            for i, s in enumerate(sentences)
        ]
        return {
            "image_id": image_id,
            "image": {"path": str(self._file(entry, name, split, where)), "bytes": None},
            "captions": clean_captions(captions, f"{self.path}: image {image_id}"),
            "caption_ids": ids,
            "split": split,
        }

    def _file(self, entry: dict[str, Any], name: str, split: str, where: str) -> Path:
        if not self.pictures:
            return Path(name)
        below = entry.get("filepath") or ""
        if below:
            refuse_outside(below, where)
        if (split, below) not in self.folders:
            self.folders[split, below] = self._folder(entry, name, below, where)
        folder = self.folders[split, below]
        if folder is not None:
            return folder / refuse_link(folder, name, where)
        assert self.renamed is not None
        found = self.renamed.path(entry.get("cocoid"))
        if found is None:
            raise FileNotFoundError(
                f"{where}: image {entry.get('cocoid')} is in no COCO 2017 folder"
            )
        refuse_link(found.parent, found.name, where)
        return found

    def _folder(self, entry: dict[str, Any], name: str, below: str, where: str) -> Path | None:
        """The folder of a split's images; None for COCO's in the 2017 folders."""
        folders = (below, "images", f"images/{below}", *_ARCHIVES, "")
        if not _USUAL.fullmatch(below):
            for start in (self.image_root, self.image_root / "images"):
                refuse_link(start, below, where)
        try:
            return find_folder(self.image_root, name, folders, where)
        except FileNotFoundError:
            self.renamed = self.renamed or Coco2017Names(self.image_root)
            if self.renamed.path(entry.get("cocoid")) is None:
                raise
            return None


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON, line {error.lineno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not JSON, byte {error.start} is no UTF-8") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; brackets in brackets
        raise ValueError(f"{path}: not JSON that is read: {error}") from error


def _list_of(content: Any, field: str, where: Path | str) -> list[Any]:
    values = _field(content, field, str(where))
    if not isinstance(values, list):
        raise ValueError(f"{where}: {field!r} is a {type(values).__name__}, expected a list")
    return values


def _entries(path: Path, field: str) -> list[Any]:
    return _list_of(_load(path), field, path)


def _field(entry: Any, name: str, where: str) -> Any:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected an object with {name!r}, got {type(entry).__name__}")
    if name not in entry:
        raise KeyError(f"{where}: field {name!r} is missing; it has {', '.join(entry) or 'none'}")
    return entry[name]


def _id(entry: Any, name: str, where: str) -> Any:
    """An id as the file has it, which is a number or a text."""
    value = _field(entry, name, where)
    text_id(value, where)
    return value


def _below(folder: Path, name: str, there: bool, where: Path) -> str:
    return str(folder / (refuse_link(folder, name, str(where)) if there else name))


def _ids(ids: Sequence[int] | str | Path) -> list[int]:
    if not isinstance(ids, (str, Path)):
        return [int(i) for i in ids]
    path = Path(ids)
    if path.suffix == ".npy":
        numbers = map_npy(path, "r")
        if numbers.dtype.kind not in "iu":
            raise ValueError(f"{path}: expected image ids, got {numbers.dtype}")
        return numbers.ravel().tolist()
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").split("\n")]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is no UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if line and not (line.isascii() and line.isdigit() and len(line) < 20):
            raise ValueError(f"{path}, line {number}: expected an image id, got {line[:80]!r}")
    return [int(line) for line in lines if line]


def find_folder(image_root: Path, name: str, folders: Sequence[str], where: str) -> Path:
    """The folder that holds the image file `name`.

    One file is looked for, so a reader asks once for each group of images that share a folder;
    an image missing beyond that is named when it is decoded.

    Args:
        image_root: folder the images are searched in.
        name: file name of one image.
        folders: folders to try in this order, relative to `image_root`; "" is `image_root` itself.
        where: the annotation file and the entry, for the error.

    Raises:
        FileNotFoundError: the file lies in none of them; the message lists what was tried.
    """
    tried = dict.fromkeys(Path(os.path.abspath(image_root / folder)) for folder in folders)
    for folder in tried:
        if os.path.isfile(folder / name):  # and not where no file can have such a name
            return folder
    raise FileNotFoundError(
        f"{where}: image {name!r} not found in {', '.join(map(str, tried))[:2000]}; "
        "image_root= says where the images are"
    )


class Coco2017Names:
    """Finds a COCO image in the 2017 folders, whatever name and folder it had in 2014.

    The images are the same; 2017 dropped the prefix ``COCO_val2014_`` and drew the train/val line
    anew, so ``val2014/COCO_val2014_000000391895.jpg`` is ``train2017/000000391895.jpg``.
    """

    def __init__(self, image_root: Path):
        parents = (image_root, image_root / "images")
        folders = [p / name for p in parents for name in ("train2017", "val2017")]
        present = [Path(os.path.abspath(f)) for f in folders if f.is_dir()]
        self.folder = {name: folder for folder in present for name in os.listdir(folder)}

    def path(self, image_id: object) -> Path | None:
        """The image's file, or None where there is none."""
        if not isinstance(image_id, int):
            return None
        name = f"{image_id:012d}.jpg"
        return self.folder[name] / name if name in self.folder else None
