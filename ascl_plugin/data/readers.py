"""Image-caption data of any usual layout, read into one row schema.

>>> splits = read("../data/coco")                                    # doctest: +SKIP
>>> texts, caption_to_image = caption_to_image(splits["test"])       # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path

import datasets

from ascl_plugin.data.annotations import is_karpathy, read_coco_captions, read_karpathy
from ascl_plugin.data.rows import ROW, SPLITS, caption_to_image, require_splits
from ascl_plugin.data.scan import read_scan
from ascl_plugin.data.scan_layout import CAPTIONS
from ascl_plugin.data.tables import read_table

__all__ = [
    "ROW",
    "caption_to_image",
    "read",
    "read_coco_captions",
    "read_karpathy",
    "read_scan",
    "read_table",
    "require_splits",
]


def read(
    data_root: str | Path,
    annotations: str | Path | None = None,
    image_root: str | Path | None = None,
    pictures: bool = True,
) -> datasets.DatasetDict:
    """Read the splits in `data_root`, whatever its layout.

    The first of these that is there: Karpathy's JSON (``dataset*.json``); COCO's captions
    (``annotations/captions_*.json``, split and year in the name); SCAN's precomputed folder
    (``*_caps.txt``); a folder that `datasets` reads (Parquet, images with metadata); a hub id
    ("user/name") where no such path exists.

    Args:
        data_root: a folder, a Parquet file, or a hub id.
        annotations: the JSON file to read, where there are several or it lies elsewhere; a relative
            path starts at `data_root`, or where the program runs.
        image_root: folder of the images of a JSON file; `data_root` by default.
        pictures: look for the images of a JSON file; if False, their paths are bare names.

    Returns:
        Any of "train", "val", "test", with rows as `ROW`; `require_splits` refuses too few.

    Raises:
        FileNotFoundError, KeyError, ValueError: as `read_karpathy`, `read_coco_captions` and
            `read_table`; ValueError also when several files could be meant.
    """
    root = Path(data_root)
    image_root = image_root or root
    if annotations is not None:
        beside = root / annotations
        chosen = beside if beside.exists() else Path(annotations)
        if not chosen.is_file():
            raise FileNotFoundError(f"annotations {annotations}: no such file, nor {beside}")
        if is_karpathy(chosen):
            return read_karpathy(chosen, image_root, pictures)
        return _read_coco([chosen], image_root, pictures)
    karpathy = sorted(root.glob("dataset*.json"))
    if len(karpathy) > 1:
        names = ", ".join(path.name for path in karpathy)
        raise ValueError(f"{root}: several annotation files, {names}; annotations= chooses one")
    if karpathy:
        return read_karpathy(karpathy[0], image_root, pictures)
    coco = sorted((root / "annotations").glob("captions_*.json"))
    if coco:
        return _read_coco(coco, image_root, pictures)
    return read_scan(root) if any(root.glob(f"*{CAPTIONS}")) else read_table(data_root)


def _read_coco(paths: list[Path], image_root: str | Path, pictures: bool) -> datasets.DatasetDict:
    found: dict[str, datasets.Dataset] = {}
    origin: dict[str, Path] = {}
    for path in paths:
        split = read_coco_captions(path, image_root, pictures=pictures)
        name = split[0]["split"] if len(split) else "none"
        if name in found:
            raise ValueError(
                f"{path.parent}: {origin[name].name} and {path.name} are both {name}; "
                "annotations= chooses one"
            )
        found[name], origin[name] = split, path
    return datasets.DatasetDict({k: found[k] for k in SPLITS if k in found})
