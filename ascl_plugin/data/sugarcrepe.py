"""SugarCrepe's JSON: for an image a true caption and a false one, in a file for each kind.

Hsieh et al., SugarCrepe: Fixing Hackable Benchmarks for Vision-Language Compositionality, 2023;
https://github.com/RAIVNLab/sugar-crepe. Its files are add_obj, add_att, replace_obj, replace_att,
replace_rel, swap_obj and swap_att; any further one of this layout is a kind of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ascl_plugin.data.annotations import find_folder
from ascl_plugin.data.rows import clean_captions, refuse_link, refuse_outside

#: Where COCO's validation images may lie below an image root.
FOLDERS = ("", "val2017", "images/val2017", "images")
_FIELDS = ("filename", "caption", "negative_caption")


def read_sugarcrepe(
    path: str | Path, image_root: str | Path | None = None, pictures: bool = True
) -> dict[str, list[dict[str, Any]]]:
    """Kind -> rows, of files of ``{"0": {"filename", "caption", "negative_caption"}, ...}``.

    Images are found in `image_root` under ``val2017/``, ``images/val2017/``, ``images/`` or
    nothing.

    Args:
        path: a folder of ``KIND.json``, or one such file.
        image_root: folder of the images; that of `path` by default.
        pictures: whether images are looked for; if not, as where features come from files, their
            paths are bare names.

    Returns:
        Rows of `image_id` (the file name), `image` ({"path", "bytes"}), `caption` and
        `negative_caption`, in the order of the file; kinds by alphabet.

    Raises:
        FileNotFoundError: nothing there, or the first image of a file is nowhere to be found.
        KeyError: an entry lacks a field.
        ValueError: no JSON, not that layout, no entries; a caption that is empty or no string; an
            image path that leaves `image_root`, or does so by a link. The message names file and
            entry.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path}: no .json file in this folder")
    if image_root is None:
        image_root = path if path.is_dir() else path.parent
    root = Path(image_root) if pictures else None
    return {file.stem: _rows(file, root) for file in files}


def _rows(path: Path, image_root: Path | None) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, or no UTF-8
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f'{path}: expected {{"0": {{"filename", "caption", "negative_caption"}}, ...}}, got '
            f"{'no entries' if content == {} else type(content).__name__}"
        )
    rows: list[dict[str, Any]] = []
    folder = Path()
    for key, entry in content.items():
        where = f"{path}: entry {key[:80]!r}"
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: expected an object, got {type(entry).__name__}")
        for name in _FIELDS:
            if name not in entry:
                raise KeyError(f"{where}: field {name!r} is missing; it has {', '.join(entry)}")
        name = refuse_outside(entry["filename"], where)
        caption, negative = clean_captions([entry["caption"], entry["negative_caption"]], where)
        if image_root is not None and not rows:
            folder = find_folder(image_root, name, FOLDERS, where)
        if image_root is not None:
            refuse_link(folder, name, where)
        image = {"path": str(folder / name), "bytes": None}
        rows.append(
            {"image_id": name, "image": image, "caption": caption, "negative_caption": negative}
        )
    return rows
