"""SugarCrepe's JSON: for an image a true caption and a false one, in a file for each kind.

Hsieh et al., SugarCrepe: Fixing Hackable Benchmarks for Vision-Language Compositionality, 2023;
https://github.com/RAIVNLab/sugar-crepe. Its files are add_obj, add_att, replace_obj, replace_att,
replace_rel, swap_obj and swap_att; any further one of this layout is a kind of its own.
"""

from __future__ import annotations

from pathlib import Path

from ascl_plugin.data.image_paths import ImagePaths
from ascl_plugin.data.json_file import field, load_json
from ascl_plugin.data.rows import clean_captions

#: Where COCO's validation images may lie below an image root.
FOLDERS = ("", "val2017", "images/val2017", "images")


def read_sugarcrepe(
    path: str | Path, image_root: str | Path | None = None, pictures: bool = True
) -> dict[str, list[dict[str, object]]]:
    """Read files of ``{"0": {"filename", "caption", "negative_caption"}, ...}``.

    Images are found in `image_root` under ``val2017/``, ``images/val2017/``, ``images/`` or
    nothing.

    Args:
        path: a folder of ``KIND.json``, or one such file.
        image_root: folder of the images; that of `path` by default.
        pictures: look for the images; if False, their paths are bare names.

    Returns:
        Kind -> rows of `image_id` (the file name), `image` ({"path", "bytes"}), `caption` and
        `negative_caption`, in the order of the file; kinds by alphabet.

    Raises:
        FileNotFoundError: nothing there, or the first image of a file is nowhere to be found.
        KeyError: an entry lacks a field.
        ValueError: no JSON, not that layout, no entries; captions that `clean_captions` refuses; an
            image path that leaves `image_root`, or does so by a link. The message names file and
            entry.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path}: no .json file in this folder")
    root = Path(image_root or (path if path.is_dir() else path.parent))
    return {file.stem: _rows(file, ImagePaths(root if pictures else None)) for file in files}


def _rows(path: Path, paths: ImagePaths) -> list[dict[str, object]]:
    content = load_json(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f'{path}: expected {{"0": {{"filename", "caption", "negative_caption"}}, ...}}, got '
            f"{'no entries' if content == {} else type(content).__name__}"
        )
    rows: list[dict[str, object]] = []
    for key, entry in content.items():
        where = f"{path}: entry {key[:80]!r}"
        said = [field(entry, name, where) for name in ("caption", "negative_caption")]
        name = field(entry, "filename", where)
        image = {"path": paths.find(name, FOLDERS, where), "bytes": None}
        caption, negative = clean_captions(said, where)
        rows.append(
            {"image_id": name, "image": image, "caption": caption, "negative_caption": negative}
        )
    return rows
