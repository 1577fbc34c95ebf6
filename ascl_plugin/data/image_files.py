"""Where the image files of an annotation file lie: people unpack the same archives differently."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


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
