"""Region features in numpy's files: SCAN's `X_ims.npy`, and a folder with one file an image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ascl_plugin.adapters.regions.reader import MAX_BYTES, RegionReader, RegionRecord
from ascl_plugin.data.scan_layout import IMAGES, read_split
from ascl_plugin.npy_file import NpyFile, read_npz

# names that published extractors give the arrays of an .npz
_FEATURES, _BOXES = ("features", "feat", "x", "arr_0"), ("bbox", "boxes")
_COUNTS = ("num_bbox", "num_boxes", "num_bbx")
_INFO = "_info.npy"  # a pickle of boxes that some extractors write beside ID.npy


class ScanArray(RegionReader):
    """SCAN's `X_ims.npy` (rows, K, D), or (rows, D) of one region an image.

    Image ids: see `ascl_plugin.data.scan_layout`.
    """

    def __init__(self, path: Path) -> None:
        self.array, self.repeat = NpyFile(path), 1
        shape = self.array.shape
        if len(shape) not in (2, 3):
            raise ValueError(
                f"{path}: expected an array (images, regions, width) or (images, width), got shape "
                f"{shape}"
            )
        if path.name.endswith(IMAGES):
            split = read_split(path.parent, path.name.removesuffix(IMAGES))
            ids, self.repeat = split.ids, split.repeat
        else:
            ids = [f"{path.stem}-{i}" for i in range(shape[0])]
        super().__init__(path, ids, shape[-1], self.array.dtype, False)

    def _count(self, entry: int) -> int:
        return self.array.shape[1] if len(self.array.shape) == 3 else 1

    def _read(self, entry: int, count: int) -> RegionRecord:
        row = entry * self.repeat
        if len(self.array.shape) == 2:
            return RegionRecord(self.array.row(row)[None])
        return RegionRecord(self.array.row(row, count))


def array_names(folder: Path) -> Iterator[str]:
    """Yield the names of .npy and .npz files below a folder, with slashes; hidden ones left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        below = Path(place).relative_to(folder)
        for name in names:
            if name.endswith((".npy", ".npz")) and name[0] != ".":
                yield (below / name).as_posix()


class RegionFolder(RegionReader):
    """A folder of `ID.npy` (K, D) or (D,), and `ID.npz` with `features` and `bbox`.

    An id with a slash, ``train/0``, is a file in a folder of it.

    The arrays of an .npz may be called `features`, `feat` or `x` (or have no name), `bbox` or
    `boxes`, and `num_bbox`, the number of real regions; others in it, pickles among them, and
    `ID_info.npy` beside `ID.npy` are not read.
    """

    def __init__(self, path: Path) -> None:
        there = set(array_names(path))
        self.names = sorted(
            n for n in there if not (n.endswith(_INFO) and n.removesuffix(_INFO) + ".npy" in there)
        )
        if not self.names:
            raise ValueError(f"{path}: no .npy or .npz files in it")
        self.path = path
        first = self._read(0, 1)
        ids, boxes = [name[:-4] for name in self.names], first.boxes is not None
        super().__init__(path, ids, first.features.shape[-1], first.features.dtype, boxes)

    def _count(self, entry: int) -> int:
        if self.names[entry].endswith(".npy"):
            shape = NpyFile(self.path / self.names[entry]).shape
            return shape[0] if len(shape) == 2 else 1
        return len(self._read(entry, None).features)

    def _read(self, entry: int, count: int | None) -> RegionRecord:
        path = self.path / self.names[entry]
        if path.suffix == ".npz":
            features, boxes = self._from_npz(path)
            _check_axes(path, features.shape)
        else:
            file, boxes = NpyFile(path), None
            _check_axes(path, file.shape)
            rows = file.shape[0] if len(file.shape) == 1 or count is None else count
            features = file.first(rows)
        features = features[None] if features.ndim == 1 else features
        return RegionRecord(features[:count], None if boxes is None else boxes[:count])

    def _from_npz(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the real regions of an image and their boxes."""
        found = read_npz(path, _FEATURES + _BOXES + _COUNTS, MAX_BYTES)
        features, boxes, count = (
            next((found[n] for n in names if n in found), None)
            for names in (_FEATURES, _BOXES, _COUNTS)
        )
        if features is None:
            raise ValueError(f"{path}: no array 'features' in it")
        if features.dtype.kind != "f":
            raise ValueError(f"{path}: expected floats, got {features.dtype}")
        if boxes is not None and boxes.ndim != 2:
            raise ValueError(f"{path}: boxes have shape {boxes.shape}, expected (regions, 4)")
        turned = self._turned(features.shape, None if boxes is None else boxes.shape, str(path))
        features = features.T if turned.features else features
        boxes = boxes.T if boxes is not None and turned.boxes else boxes
        if count is None or count.size != 1 or features.ndim != 2:
            return features, boxes
        real = int(count.reshape(())[()])
        other_way = boxes is None and real == features.shape[1] != len(features)
        if not 0 < real <= len(features) or other_way:
            raise ValueError(
                f"{path}: {real} regions are claimed, features have shape {features.shape}; "
                "expected (regions, width)"
            )
        return features[:real], None if boxes is None else boxes[:real]


def _check_axes(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) not in (1, 2):
        raise ValueError(f"{path}: expected an array (regions, width), got shape {shape}")


def record_name(image_id: str, record: RegionRecord) -> str:
    """Return the file name of an image in a folder: `ID.npy`, with boxes `ID.npz`."""
    return f"{image_id}.npy" if record.boxes is None else f"{image_id}.npz"


def save_record(path: Path, record: RegionRecord) -> None:
    """Write an image's file, as `RegionFolder` reads it."""
    with open(path, "wb") as file:
        if record.boxes is None:
            np.save(file, record.features, allow_pickle=False)
        else:
            np.savez(file, features=record.features, bbox=record.boxes)
