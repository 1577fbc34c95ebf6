"""Opens region features in any of the formats in use, told apart by the files."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from ascl_plugin.adapters.regions.npy import RegionFolder, ScanArray, array_names
from ascl_plugin.adapters.regions.reader import RegionReader, RegionRecord
from ascl_plugin.adapters.regions.tsv import RegionTsv
from ascl_plugin.data.scan_layout import IMAGES, split_names

_TSV, _HDF5 = re.compile(r"\.tsv(\.\d+)?$"), re.compile(r"\.(h5|hdf5)$")


def open_regions(path: str | Path) -> RegionReader:
    """Return the reader for a file or folder; names and content tell the format.

    A file: ``.npy`` (SCAN's ``X_ims.npy``), ``.tsv`` (bottom-up attention, also ``.tsv.0``),
    ``.h5`` or ``.hdf5``. A folder of these is one source: SCAN's, or files that each hold a part of
    the images. Any other folder of ``.npy`` and ``.npz``: one file an image.

    Raises:
        FileNotFoundError: no known file.
        ValueError: a file that is damaged; an image in two files; widths that differ.
        ImportError: HDF5 without h5py (extra `regions`).
    """
    path = Path(path)
    if path.is_file():
        return _open_file(path)
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such file or folder of region features; recipes/extract_features.py makes "
            "them from pictures"
        )
    names = sorted(n for n in os.listdir(path) if not n.startswith("."))
    parts = [f"{name}{IMAGES}" for name in split_names(path, IMAGES)]
    for known in (_TSV, _HDF5):
        parts = parts or [name for name in names if known.search(name)]
    if parts:
        readers = [_open_file(path / name) for name in parts]
        return readers[0] if len(readers) == 1 else SeveralFiles(path, readers)
    if any(array_names(path)):
        return RegionFolder(path)
    raise FileNotFoundError(
        f"{path}: no region features, neither *{IMAGES}, *.tsv, *.h5, *.hdf5, *.npy nor *.npz"
    )


def _open_file(path: Path) -> RegionReader:
    if _TSV.search(path.name):
        return RegionTsv(path)
    if path.suffix == ".npy":
        return ScanArray(path)
    if _HDF5.search(path.name):
        from ascl_plugin.adapters.regions.hdf5 import open_hdf5

        return open_hdf5(path)
    raise ValueError(f"{path}: expected .npy, .tsv, .h5 or .hdf5, or a folder")


class SeveralFiles(RegionReader):
    """Several readers as one; each image is in one of them.

    Raises:
        ValueError: an image in two; widths or types that differ.
    """

    def __init__(self, path: Path, parts: list[RegionReader]) -> None:
        first = parts[0]
        for part in parts[1:]:
            if (part.dim, part.dtype) != (first.dim, first.dtype):
                raise ValueError(
                    f"{part.path}: features of {part.dtype}, width {part.dim}; {first.path} has "
                    f"{first.dtype}, width {first.dim}"
                )
        self.note = "".join(part.note for part in parts)
        self.parts, self.ends = parts, list(accumulate(map(len, parts)))
        ids = [image_id for part in parts for image_id in part.ids]
        super().__init__(path, ids, first.dim, first.dtype, all(p.has_boxes for p in parts))

    def _part(self, entry: int) -> tuple[RegionReader, int]:
        number = bisect_right(self.ends, entry)
        return self.parts[number], entry - (self.ends[number - 1] if number else 0)

    def where(self, entry: int) -> str:
        """Return the part's file, and image."""
        part, entry = self._part(entry)
        return part.where(entry)

    def _count(self, entry: int) -> int:
        part, entry = self._part(entry)
        return part.count(entry)

    def _read(self, entry: int, count: int) -> RegionRecord:
        part, entry = self._part(entry)
        found = part.read(entry, count)
        return found if self.has_boxes else RegionRecord(found.features)
