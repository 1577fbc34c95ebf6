"""Image-caption data of any usual layout, read into one row schema.

>>> splits = read("../data/coco")                                    # doctest: +SKIP
>>> texts, caption_to_image = caption_to_image(splits["test"])       # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path

import datasets

from ascl_plugin.data.annotations import is_karpathy, read_coco_captions, read_karpathy
from ascl_plugin.data.listings import (
    SUFFIXES,
    find_listings,
    is_listing,
    read_listings,
    refuse_lists,
)
from ascl_plugin.data.rows import ROW, SPLITS, caption_to_image, divided, require_splits
from ascl_plugin.data.scan import read_scan
from ascl_plugin.data.scan_layout import CAPTIONS
from ascl_plugin.data.shard_folder import read_shards
from ascl_plugin.data.tables import read_table
from ascl_plugin.data.tar_files import TARS, by_split, is_tar, tar_files, tars_below

SAVED = ("dataset_dict.json", "state.json")  # of `save_to_disk`
HUB_NOTES = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json")

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
    val_fraction: float = 0.0,
    test_fraction: float = 0.0,
    skip_bad: bool = False,
) -> datasets.DatasetDict:
    """Read the splits in `data_root`, whatever its layout.

    The first of these that is there: a folder of `Dataset.save_to_disk`; Karpathy's JSON
    (``dataset*.json``); COCO's captions (``annotations/captions_*.json``, split and year in the
    name); SCAN's precomputed folder (``*_caps.txt``); files that list pictures (`listings`), beside
    or above them; tar files, in the folder or in one for each split; a folder that `datasets`
    reads; a hub id ("user/name") where no such path exists.

    Args:
        data_root: a folder, one of these files, a pattern of tar files (as `Shards` takes them), or
            a hub id.
        annotations: the file to read, where there are several or it lies elsewhere; a relative
            path starts at `data_root`, or where the program runs.
        image_root: folder of the pictures that files name; `data_root` by default.
        pictures: look for these pictures; if False, their paths are bare names.
        val_fraction, test_fraction: shares of a data set of one split that become "val" and "test",
            by a hash of the image id.
        skip_bad: leave out samples of tar files that lack a picture or captions; a warning counts
            them.

    Returns:
        Any of "train", "val", "test", with rows as `ROW`; `require_splits` refuses too few.

    Raises:
        FileNotFoundError, KeyError, ValueError: as `read_karpathy`, `read_coco_captions` and
            `read_table`; ValueError also when several files could be meant.
    """
    tars = tar_files(data_root) if annotations is None else None
    if tars is not None:
        splits = read_shards(by_split(tars), skip_bad)
    else:
        splits = _read(Path(data_root), str(data_root), annotations, image_root, pictures, skip_bad)
    return divided(splits, val_fraction, test_fraction)


def _read(
    root: Path,
    name: str,
    annotations: str | Path | None,
    given_root: str | Path | None,
    pictures: bool,
    skip_bad: bool,
) -> datasets.DatasetDict:
    if annotations is not None:
        beside = root / annotations
        chosen = beside if beside.exists() else Path(annotations)
        if not chosen.is_file():
            raise FileNotFoundError(f"annotations {annotations}: no such file, nor {beside}")
        return _read_file(chosen, root, given_root, pictures)
    if root.is_file():
        return _read_file(root, root.parent, given_root, pictures)
    if any((root / saved).is_file() for saved in SAVED):
        return read_table(root, load=datasets.load_from_disk)
    image_root = given_root or root
    karpathy = sorted(p for p in root.glob("dataset*.json") if p.name not in HUB_NOTES)
    if len(karpathy) > 1:
        names = ", ".join(path.name for path in karpathy)
        raise ValueError(f"{root}: several annotation files, {names}; annotations= chooses one")
    if karpathy:
        return read_karpathy(karpathy[0], image_root, pictures)
    coco = sorted((root / "annotations").glob("captions_*.json"))
    if coco:
        return _read_coco(coco, image_root, pictures)
    if any(root.glob(f"*{CAPTIONS}")):
        return read_scan(root)
    if root.is_dir():
        lists = None if given_root is None else Path(given_root)
        if listings := find_listings(root, lists):
            return read_listings(listings, lists, root, pictures)
        if tars := tars_below(root):
            return read_shards(by_split(tars, root), skip_bad)
    return read_table(name)


def _read_file(
    path: Path, root: Path, given_root: str | Path | None, pictures: bool
) -> datasets.DatasetDict:
    """Read one file of annotations, whichever it is."""
    if is_tar(path):
        return read_shards(by_split([str(path)]))
    if path.suffix.lower() not in SUFFIXES:
        known = ", ".join((*SUFFIXES, *TARS))
        raise ValueError(f"{path}: expected a folder, or a file that ends in {known}")
    lists = None if given_root is None else Path(given_root)
    if is_listing(path, lists, root):
        return read_listings([path], lists, root, pictures)
    if path.suffix.lower() == ".json":
        image_root = given_root or root
        if is_karpathy(path):
            return read_karpathy(path, image_root, pictures)
        return _read_coco([path], image_root, pictures)
    if path.suffix.lower() == ".parquet":
        return read_table(path)
    refuse_lists(path)
    raise ValueError(f"{path}: no column for pictures or captions in its first row")


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
