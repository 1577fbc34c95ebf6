"""A folder of pictures without captions."""

from __future__ import annotations

import os
from pathlib import Path

import datasets

from ascl_plugin.data.rows import to_dataset

#: Endings of the files that a folder is searched for, in lower case.
ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm",
)  # fmt: skip


def pictures_in(folder: str | Path) -> list[Path]:
    """Return the paths of all pictures in a folder and in its folders, in order of names.

    Raises:
        FileNotFoundError: no such folder, or no picture in it.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of pictures")
    found = sorted(
        Path(place, name)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(ENDINGS) and not name.startswith("._")
    )
    if not found:
        raise FileNotFoundError(f"{folder}: no pictures here ({', '.join(ENDINGS)})")
    return found


def read_pictures(folder: str | Path, split: str = "test") -> datasets.Dataset:
    """Return the pictures of a folder as rows without captions; ids are paths below it.

    Raises:
        FileNotFoundError: as `pictures_in`.
    """
    root = Path(folder)
    cells: dict[str, object] = {"captions": [], "caption_ids": [], "split": split}
    return to_dataset(
        [
            {
                "image_id": path.relative_to(root).as_posix(),
                "image": {"path": os.path.abspath(path), "bytes": None},
                **cells,
            }
            for path in pictures_in(root)
        ]
    )
