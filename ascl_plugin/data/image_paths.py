"""Paths of the images that an annotation file names, in the folders where they usually lie."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ascl_plugin.data.rows import refuse_link, refuse_outside

# folders that people link to the one copy they have, wherever that lies
_USUAL = re.compile(r"(train|val|test)20\d\d")


#: Folders that the archives of Flickr30K and Flickr8k, and people, put pictures into.
USUAL_FOLDERS = (
    "images", "Images", "flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images",
    "Flicker8k_Dataset", "Flickr8k_Dataset", "Flicker8k_Dataset/Flicker8k_Dataset",
)  # fmt: skip


class ImagePaths:
    """Finder of images below a root.

    One file is looked for in each group of images that share a folder; an image missing beyond that
    is named when it is decoded. COCO's images are also found in the 2017 folders, whose names lack
    the prefix ``COCO_val2014_`` and which divide train from val anew:
    ``val2014/COCO_val2014_000000391895.jpg`` is ``train2017/000000391895.jpg``.

    Args:
        root: folder the images are searched in; None: no image is looked for, paths are bare names.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._folders: dict[tuple[str, tuple[str, ...]], Path | None] = {}
        self._of_2017: dict[str, Path] | None = None

    def find(
        self,
        name: str,
        folders: tuple[str, ...],
        where: str,
        group: str = "",
        coco_id: object = None,
    ) -> str:
        """Return the path of an image.

        Args:
            name: file name, which may contain folders.
            folders: folders to try in this order, relative to the root; "" is the root itself.
                The first is the one that the annotation file names, if it does.
            where: the annotation file and the entry, for errors.
            group: name of the group of images that share a folder.
            coco_id: number of a COCO image, which its 2017 name consists of.

        Raises:
            FileNotFoundError: the file lies in none of them; the message lists the folders tried.
            ValueError: a name or a folder that leaves the root, or does so by a link.
        """
        refuse_outside(name, where)
        if self.root is None:
            return name
        key = group, folders
        if key not in self._folders:
            self._folders[key] = self._search(self.root, name, folders, where, coco_id)
        folder = self._folders[key]
        if folder is None:
            found = self._path_2017(self.root, coco_id)
            if found is None:
                raise FileNotFoundError(f"{where}: image {coco_id} is in no COCO 2017 folder")
            folder, name = found.parent, found.name
        return str(folder / refuse_link(folder, name, where))

    def _search(
        self, root: Path, name: str, folders: tuple[str, ...], where: str, coco_id: object
    ) -> Path | None:
        """Return the folder of a group; None for COCO's in the 2017 folders."""
        if not _USUAL.fullmatch(folders[0]):
            for start in (root, root / "images"):
                refuse_link(start, folders[0], where)
        tried = dict.fromkeys(Path(os.path.abspath(root / folder)) for folder in folders)
        for folder in tried:
            if os.path.isfile(folder / name):  # False, too, for a name that no file can have
                return folder
        if self._path_2017(root, coco_id) is not None:
            return None
        raise FileNotFoundError(
            f"{where}: image {name!r} not found in {', '.join(map(str, tried))[:2000]}; "
            "image_root= says where the images are"
        )

    def _path_2017(self, root: Path, coco_id: object) -> Path | None:
        if not isinstance(coco_id, int):
            return None
        if self._of_2017 is None:
            folders = [p / n for p in (root, root / "images") for n in ("train2017", "val2017")]
            there = [Path(os.path.abspath(folder)) for folder in folders if folder.is_dir()]
            self._of_2017 = {name: folder for folder in there for name in os.listdir(folder)}
        name = f"{coco_id:012d}.jpg"
        return self._of_2017[name] / name if name in self._of_2017 else None
