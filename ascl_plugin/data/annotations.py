"""Caption files: Karpathy's JSON (COCO, Flickr30K, Flickr8k) and COCO's own captions JSON."""

from __future__ import annotations

import re
from pathlib import Path

import datasets

from ascl_plugin.data.image_paths import USUAL_FOLDERS, ImagePaths
from ascl_plugin.data.json_file import Json, field, load_json
from ascl_plugin.data.rows import (
    SPLITS,
    clean_captions,
    refuse_duplicates,
    refuse_outside,
    split_named,
    text_id,
    to_dataset,
)
from ascl_plugin.interfaces import Row


def read_karpathy(
    path: str | Path, image_root: str | Path | None = None, pictures: bool = True
) -> datasets.DatasetDict:
    """Read Karpathy's JSON: ``{"images": [{"filename", "split", "sentences": [{"raw"}]}]}``.

    An image's id is its ``cocoid``, where there is none its file name; a caption's is its
    ``sentid``, else "image id#number". ``restval`` joins ``train``. Images are found in
    `image_root` under ``filepath/``, ``images/``, ``images/filepath/``, ``flickr30k-images/``,
    ``Flicker8k_Dataset/`` or nothing, and COCO's in ``train2017/`` and ``val2017/`` under the names
    they have there.

    Args:
        path: the JSON file.
        image_root: folder of the images; the file's own by default.
        pictures: look for the images; if False, their paths are bare names.

    Returns:
        The splits the file has, in its order of images; rows as `ascl_plugin.data.rows.ROW`.

    Raises:
        FileNotFoundError: no such file, or the first image of a split is nowhere to be found.
        KeyError: an entry lacks a field.
        ValueError: no JSON; an unknown split; captions that `clean_captions` refuses; an image id
            that occurs twice; an image path that leaves `image_root`, or does so by a link.
    """
    path = Path(path)
    paths = ImagePaths(Path(image_root or path.parent) if pictures else None)
    entries = field(load_json(path), "images", path, list)
    rows = [_karpathy_row(entry, path, index, paths) for index, entry in enumerate(entries)]
    refuse_duplicates((row["image_id"] for row in rows), str(path))
    splits = {name: [row for row in rows if row["split"] == name] for name in SPLITS}
    return datasets.DatasetDict({k: to_dataset(v) for k, v in splits.items() if v})


def is_karpathy(path: str | Path) -> bool:
    """Return True for Karpathy's JSON, False for COCO's.

    Raises:
        FileNotFoundError, ValueError: no such file, or no JSON.
    """
    images = field(load_json(Path(path)), "images", path, list)
    return bool(images) and isinstance(images[0], dict) and "sentences" in images[0]


def _karpathy_row(entry: Json, path: Path, index: int, paths: ImagePaths) -> Row:
    where = f"{path}: images[{index}]"
    name = refuse_outside(field(entry, "filename", where), where)
    image_id = text_id(entry.get("cocoid", name), where)
    split = split_named(field(entry, "split", where), where)
    sentences = {
        f"{where}.sentences[{i}]": sentence
        for i, sentence in enumerate(field(entry, "sentences", where, list))
    }
    captions = [_sentence(sentence, place) for place, sentence in sentences.items()]
    below = refuse_outside(entry.get("filepath") or ".", where)
    folders = (below, "images", f"images/{below}", *USUAL_FOLDERS, "")
    return {
        "image_id": image_id,
        "image": {
            "path": paths.find(name, folders, where, split, entry.get("cocoid")),
            "bytes": None,
        },
        "captions": clean_captions(captions, f"{path}: image {image_id}"),
        "caption_ids": [
            text_id(_given(sentence, "sentid", f"{image_id}#{i}"), place)
            for i, (place, sentence) in enumerate(sentences.items())
        ],
        "split": split,
    }


def _given(entry: Json, name: str, default: str) -> Json:
    return entry.get(name, default) if isinstance(entry, dict) else default


def _sentence(sentence: Json, where: str) -> Json:
    """Return the text of a sentence: itself, its ``raw``, or its ``tokens`` joined by spaces."""
    if isinstance(sentence, str):
        return sentence
    if isinstance(sentence, dict) and "raw" not in sentence and sentence.get("tokens"):
        return " ".join(map(str, field(sentence, "tokens", where, list)))
    return field(sentence, "raw", where)


def read_coco_captions(
    path: str | Path,
    image_root: str | Path | None = None,
    split: str | None = None,
    pictures: bool = True,
) -> datasets.Dataset:
    """Read COCO's captions JSON: images of `id, file_name`, annotations of `image_id, caption`.

    Images are found in `image_root` under ``val2014/`` (the split and year in the file's name),
    ``images/val2014/``, ``images/`` or nothing.

    Args:
        path: the JSON file.
        image_root: folder of the images; by default the file's own, or the one above when that is
            called ``annotations``.
        split: "train", "val" or "test"; by default the one in the file's name.
        pictures: look for the images; if False, their paths are bare names.

    Returns:
        One split, in the order of the file; rows as `ascl_plugin.data.rows.ROW`.

    Raises:
        FileNotFoundError, KeyError, ValueError: as `read_karpathy`; ValueError also for a file name
            without a split.
    """
    path = Path(path)
    named = re.search(r"(train|val|test)(\d{4})?", path.stem)
    if split is None and named is None:
        raise ValueError(f"{path}: the name tells neither train, val nor test; split= says it")
    split = split_named(split or named[1], str(path))  # type: ignore[index]
    year = named[0] if named else split
    if image_root is None:
        image_root = path.parent.parent if path.parent.name == "annotations" else path.parent
    paths = ImagePaths(Path(image_root) if pictures else None)

    content = load_json(path)
    rows: dict[str, dict[str, Json]] = {}
    for index, entry in enumerate(field(content, "images", path, list)):
        where = f"{path}: images[{index}]"
        image_id = text_id(field(entry, "id", where), where)
        if image_id in rows:
            refuse_duplicates((text_id(each["id"], where) for each in content["images"]), str(path))
        name = field(entry, "file_name", where)
        found = paths.find(name, (year, f"images/{year}", "images", ""), where)
        cells = {"image_id": image_id, "image": {"path": found, "bytes": None}, "split": split}
        rows[image_id] = {**cells, "captions": [], "caption_ids": []}
    for index, entry in enumerate(field(content, "annotations", path, list)):
        where = f"{path}: annotations[{index}]"
        image_id = text_id(field(entry, "image_id", where), where)
        if image_id not in rows:
            raise KeyError(f"{where}: image_id {image_id} is not among the file's images")
        row = rows[image_id]
        unnamed = f"{image_id}#{len(row['captions'])}"
        row["caption_ids"].append(text_id(entry.get("id", unnamed), where))
        row["captions"].append(field(entry, "caption", where))
    for image_id, row in rows.items():
        row["captions"] = clean_captions(row["captions"], f"{path}: image {image_id}")
    return to_dataset(list(rows.values()))
