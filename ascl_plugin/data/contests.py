"""Published files of contests: for an image, texts that are true of it and texts that are false.

One reader, and a table of layouts. A layout names the fields of an entry; entries come from JSON (a
list or an object), JSON lines, CSV or Parquet, whichever a folder has. Layouts were read off these
sources:

- `sugarcrepe`: Hsieh et al. 2023, github.com/RAIVNLab/sugar-crepe, ``data/KIND.json``
- `sugarcrepe_pp`: Dumpala et al. 2024, github.com/Sri-Harsha/scpp, ``data/KIND.json``
- `aro`: Yuksekgonul et al. 2023, github.com/mertyg/vision-language-models-are-bows,
  ``dataset_zoo/aro_datasets.py``: the picture is the box that holds both things
- `aro_order`: its COCO and Flickr30k Order, which its code makes and MTEB publishes as Parquet
- `winoground`: Thrush et al. 2022, huggingface.co/datasets/facebook/winoground
- `negbench`: Alhamoud et al. 2025, github.com/m1k2zoo/negbench, the multiple-choice CSV files
- `half_truths`: Kargi et al. 2026 (arXiv 2602.23906), huggingface.co/datasets/kbora/Half-Truths,
  as github.com/kargibora/CS-CLIP, ``scripts/evaluate_half_truth.py`` reads it
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ascl_plugin.data.image_paths import ImagePaths
from ascl_plugin.data.json_file import Json, field, load_json
from ascl_plugin.data.rows import clean_captions

COCO = ("", "val2017", "images/val2017", "images")
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")


class Layout(NamedTuple):
    """Fields of the entries of a suite.

    Attributes:
        images: field of the image; or of two, each with the true text at its place, which is the
            false one of the other.
        true, false: fields of the texts.
        folders: folders below the image root where images may lie.
        files: start of the names of the files in a folder.
        kind: field that names the kind; "": the name of the file does.
        answer: field with the number of the true text among those of `true`; the rest are false.
        richer: field of a true text that says more than the first.
        box: fields of the part of the picture that is the image: left, top, width, height.
        ending: ending of the images' names, where the file leaves it out.
        bare: images are found by the last part of their path, which is of somebody's machine.
    """

    images: tuple[str, ...]
    true: tuple[str, ...]
    false: tuple[str, ...] = ()
    folders: tuple[str, ...] = ("", "images")
    files: str = ""
    kind: str = ""
    answer: str = ""
    richer: str = ""
    box: tuple[str, ...] = ()
    ending: str = ""
    bare: bool = False


_HARD = ("hard_text_1", "hard_text_2", "hard_text_3", "hard_text_4")
_CHOICES = ("caption_0", "caption_1", "caption_2", "caption_3")
LAYOUTS = {
    "sugarcrepe": Layout(("filename",), ("caption",), ("negative_caption",), COCO),
    "sugarcrepe_pp": Layout(("filename",), ("caption", "caption2"), ("negative_caption",), COCO),
    "aro": Layout(
        ("image_path",), ("true_caption",), ("false_caption",), files="visual_genome_",
        box=("bbox_x", "bbox_y", "bbox_w", "bbox_h"),
    ),
    "aro_order": Layout(("images",), ("correct_caption",), _HARD),
    "winoground": Layout(("image_0", "image_1"), ("caption_0", "caption_1"), ending=".png"),
    "negbench": Layout(
        ("image_path",), _CHOICES, folders=(*COCO, "JPEGImages"), answer="correct_answer", bare=True
    ),
    "half_truths": Layout(
        ("image",), ("anchor",), ("half_truth",), COCO, kind="triplet_type", richer="full_truth"
    ),
}  # fmt: skip


def read_contests(
    path: str | Path,
    layout: str | Layout,
    image_root: str | Path | None = None,
    pictures: bool = True,
) -> dict[str, list[dict[str, object]]]:
    """Read the entries of a suite.

    Args:
        path: a folder of files, or one file.
        layout: name in `LAYOUTS`, or a layout of your own.
        image_root: folder of the images; that of `path` by default.
        pictures: look for the images; if False, their paths are bare names.

    Returns:
        Kind -> rows of `image_id`, `image` ({"path", "bytes"}, and "box"), `true` and `false`
        (lists of texts), in the order of the file; and `richer`, if the layout has it. Of a layout
        of two images, rows 2 k and 2 k + 1 are those of one entry.

    Raises:
        FileNotFoundError: nothing there, or the first image of a file is nowhere to be found.
        KeyError: an entry lacks a field; an unknown name of a layout.
        ValueError: a damaged file, not that layout, no entries; captions that `clean_captions`
            refuses; an answer that is no number of a text; an image path that leaves `image_root`,
            or does so by a link. The message names file and entry.
    """
    if isinstance(layout, str):
        if layout not in LAYOUTS:
            raise KeyError(f"no layout {layout!r}; known are {', '.join(LAYOUTS)}")
        layout = LAYOUTS[layout]
    path = Path(path)
    root = Path(image_root or (path if path.is_dir() else path.parent))
    found: dict[str, list[dict[str, object]]] = {}
    for file in _files(path, layout):
        paths = ImagePaths(root if pictures else None)
        entries = _entries(file)
        if not entries:
            raise ValueError(f"{file}: no entries")
        for where, entry in entries.items():
            kind = str(field(entry, layout.kind, where)) if layout.kind else file.stem
            found.setdefault(kind, []).extend(_rows(entry, layout, paths, where))
    return found


def _files(path: Path, layout: Layout) -> list[Path]:
    if not path.is_dir():
        return [path]
    named = [p for p in sorted(path.iterdir()) if p.name.startswith(layout.files)]
    files = [p for p in named if p.suffix in SUFFIXES and p.is_file() and p.name[0] != "."]
    if not files:
        start = f" that begins with {layout.files!r}" if layout.files else ""
        raise FileNotFoundError(f"{path}: no {', '.join(SUFFIXES)} file{start} in this folder")
    return files


def _entries(path: Path) -> Mapping[str, Json]:
    """Return the entries of a file by their place, as errors name it."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            content: Json = pq.read_table(path).to_pylist()
        except pa.ArrowException as error:
            raise ValueError(f"{path}: not Parquet that is read: {error}") from error
    elif path.suffix == ".json":
        content = load_json(path)
    else:
        try:
            text = path.read_bytes().decode("utf-8-sig")
            if path.suffix == ".csv":
                content = list(csv.DictReader(io.StringIO(text, newline="")))
            else:
                content = [json.loads(line) for line in text.split("\n") if line.strip()]
        except (ValueError, RecursionError, csv.Error) as error:
            raise ValueError(f"{path}: not {path.suffix} that is read: {error}") from error
    if not isinstance(content, dict | list):
        raise ValueError(f"{path}: expected entries, got {type(content).__name__}")
    named = content.items() if isinstance(content, dict) else enumerate(content)
    return {f"{path}: entry {str(key)[:80]!r}": entry for key, entry in named}


def _rows(entry: Json, layout: Layout, paths: ImagePaths, where: str) -> list[dict[str, object]]:
    """Return the row of an entry, or its two."""
    richer = (layout.richer,) if layout.richer else ()
    names = (*layout.true, *layout.false, *richer)
    texts = clean_captions([field(entry, name, where) for name in names], where)
    true, false = texts[: len(layout.true)], texts[len(layout.true) :]
    images = [_image(entry, name, layout, paths, where) for name in layout.images]
    if len(images) == 2:
        return [
            {**image, "true": [text], "false": [other]}
            for image, text, other in zip(images, true, reversed(true), strict=True)
        ]
    row: dict[str, object] = {}
    if richer:
        row["richer"] = false.pop()
    if layout.answer:
        answer = str(field(entry, layout.answer, where))
        if answer not in map(str, range(len(true))):
            raise ValueError(
                f"{where}: {layout.answer!r} is {answer[:80]!r}, expected 0 to {len(true) - 1}"
            )
        false, true = true, [true.pop(int(answer))]
    return [{**images[0], "true": true, "false": false, **row}]


def _image(
    entry: Json, name: str, layout: Layout, paths: ImagePaths, where: str
) -> dict[str, object]:
    """Return `image_id` and `image` of an entry."""
    value = field(entry, name, where)
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        digest = hashlib.blake2b(value["bytes"], digest_size=16).hexdigest()
        return {"image_id": digest, "image": {"path": None, "bytes": value["bytes"]}}
    if isinstance(value, str):
        value = PurePosixPath(value).name if layout.bare else value
        value += "" if value.endswith(layout.ending) else layout.ending
    image: dict[str, object] = {"path": paths.find(value, layout.folders, where), "bytes": None}
    if not layout.box:
        return {"image_id": value, "image": image}
    box = [field(entry, side, where, int) for side in layout.box]
    return {"image_id": f"{value} {','.join(map(str, box))}", "image": image | {"box": box}}
