"""Region features in HDF5: all images in one array, or one data set an image.

HDF5 files are opened when first read, once in each process.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from ascl_plugin.adapters.missing import needs
from ascl_plugin.adapters.regions.reader import RegionReader, RegionRecord, Turned
from ascl_plugin.data.rows import text_id
from ascl_plugin.data.scan_layout import IDS, read_lines

with needs("h5py", "regions"):
    import h5py

MAX_CHUNK = 2**28  # bytes: one is unpacked to read anything in it
_FEATURES = ("features", "image_features")
_BOXES = ("bbox", "bboxes", "boxes", "image_bb")
_COUNTS = ("num_bbx", "num_bbox", "num_bboxes", "num_boxes")
_IDS = ("image_ids", "image_id", "img_ids", "ids")
_ENDS = ("pos_boxes", "pos_bbox")  # where the regions of each image begin and end
_SUFFIXES = ("_features", "_boxes")  # of data sets of one image, where it has boxes


class _Hdf5Reader(RegionReader):
    """Opens the file in each process on its own."""

    _opened: tuple[int, h5py.File] | None = None

    @property
    def file(self) -> h5py.File:
        """The open file of this process."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = None  # a forked file shares state with its parent's until it is closed
            self._opened = os.getpid(), _open(self.path)
        return self._opened[1]

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k != "_opened"}

    def read(self, entry: int, limit: int | None = None) -> RegionRecord:
        """Return an entry as `RegionReader` does."""
        try:
            return super().read(entry, limit)
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            if str(self.path) in str(error):
                raise
            # raised by h5py at a damaged file
            raise ValueError(f"{self.where(entry)} cannot be read: {error}") from error


class RegionHdf5(_Hdf5Reader):
    """`features` (I, K, D) or (I, D); with `bbox` (I, K, 4); with `num_bbx` (I,) of real regions.

    Image ids are in `image_ids`, or in `X_ids.txt` beside `X.h5`, one a line; without either,
    images are called X-0, X-1, ... Other usual names of these arrays are known too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        features = self.file[_named(self.file, _FEATURES) or _FEATURES[0]]
        self.names = {k: _named(self.file, v) for k, v in (("boxes", _BOXES), ("counts", _COUNTS))}
        if features.ndim not in (2, 3) or features.dtype.kind != "f":
            raise ValueError(
                f"{path}: features are {features.dtype} {features.shape}, expected floats (images, "
                "regions, width) or (images, width)"
            )
        boxes = self.file[self.names["boxes"]] if self.names["boxes"] else None
        ends = [name for name in _ENDS if name in self.file]
        if ends or (features.ndim == 2 and boxes is not None):
            raise ValueError(
                f"{path}: rows of {features.name} {features.shape} are regions of all images end "
                f"to end{', as ' + ends[0] + ' says' if ends else ''}; expected (images, regions, "
                "width): write a data set for each image, ID_features and ID_boxes"
            )
        self.features_name = features.name
        images, *shape = features.shape
        self.turned = Turned()
        if boxes is not None and features.ndim == 3 and boxes.shape[0] == images:
            self.turned = self._turned(shape, boxes.shape[1:], str(path))
        if self.turned.features:
            shape.reverse()
        self.most = shape[0] if len(shape) == 2 else 1
        if images > os.path.getsize(path):
            raise ValueError(f"{path} claims {images} images, it has not as many bytes")
        for name in filter(None, self.names.values()):
            if self.file[name].shape[:1] != (images,):
                raise ValueError(
                    f"{path}: {name} has shape {self.file[name].shape}, features are of {images} "
                    "images"
                )
        self.counts = np.full(images, self.most)
        if self.names["counts"]:
            self.counts = self.file[self.names["counts"]][:].reshape(images, -1)[:, 0].astype(int)
        ids = self._ids(images)
        super().__init__(path, ids, shape[-1], features.dtype, boxes is not None)

    def _ids(self, images: int) -> list[str]:
        beside = read_lines(self.path.with_name(self.path.stem + IDS))
        if name := _named(self.file, _IDS):
            stored = self.file[name]
            values = stored.asstr()[:] if h5py.check_string_dtype(stored.dtype) else stored[:]
            ids = [
                text_id(value, f"{self.path}: {name}[{row}]")
                for row, value in enumerate(values.reshape(-1).tolist())
            ]
        elif beside is not None:
            ids = [line for line in beside if line]
        else:
            return [f"{self.path.stem}-{row}" for row in range(images)]
        if len(ids) != images:
            raise ValueError(f"{self.path}: {len(ids)} image ids, features of {images} images")
        return ids

    def _count(self, entry: int) -> int:
        if self.counts[entry] > self.most:
            raise ValueError(
                f"{self.where(entry)} claims {self.counts[entry]} regions, there is room for "
                f"{self.most}"
            )
        return int(self.counts[entry])

    def _read(self, entry: int, count: int) -> RegionRecord:
        features = self.file[self.features_name]
        if features.ndim == 2:
            return RegionRecord(features[entry][None])
        first, second = slice(None, count), (slice(None), slice(None, count))
        found = features[(entry, *second)].T if self.turned.features else features[entry, first]
        if not self.names["boxes"]:
            return RegionRecord(found)
        boxes = self.file[self.names["boxes"]]
        turned = self.turned.boxes
        return RegionRecord(found, boxes[(entry, *second)].T if turned else boxes[entry, first])


class RegionHdf5Images(_Hdf5Reader):
    """One data set an image: `ID` (K, D) or (D,), or `ID_features` and `ID_boxes`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        keys = list(self.file)
        named = [key for key in keys if key.endswith(_SUFFIXES[0])]
        self.suffix = _SUFFIXES[0] if named else ""
        ids = [k.removesuffix(self.suffix) for k in named or keys if not k.endswith(_SUFFIXES[1])]
        if not ids:
            raise ValueError(f"{path}: no images in it")
        self.ids = ids
        first, boxes = self._dataset(0), self._boxes(0)
        width = first.shape[0 if first.ndim == 2 and self._turned_of(0).features else -1]
        super().__init__(path, ids, width, first.dtype, boxes is not None)

    def _dataset(self, entry: int) -> h5py.Dataset:
        found = self.file[self.ids[entry] + self.suffix]
        if isinstance(found, h5py.Dataset):
            _refuse_elsewhere(found, self.where(entry))
        if not isinstance(found, h5py.Dataset) or found.dtype.kind != "f" or found.ndim > 2:
            raise ValueError(f"{self.where(entry)}: expected floats (regions, width), got {found}")
        if not found.ndim:
            raise ValueError(f"{self.where(entry)}: a single number, expected (regions, width)")
        return found

    def _boxes(self, entry: int) -> h5py.Dataset | None:
        return self.file.get(self.ids[entry] + _SUFFIXES[1])

    def _turned_of(self, entry: int) -> Turned:
        boxes, shape = self._boxes(entry), self._dataset(entry).shape
        if boxes is None or len(shape) == 1:
            return Turned()
        return self._turned(shape, boxes.shape, self.where(entry))

    def _count(self, entry: int) -> int:
        found = self._dataset(entry)
        return found.shape[self._turned_of(entry).features] if found.ndim == 2 else 1

    def _read(self, entry: int, count: int) -> RegionRecord:
        found = self._dataset(entry)
        if found.ndim == 1:
            return RegionRecord(found[:][None])
        turned, boxes = self._turned_of(entry), self._boxes(entry)
        features = found[:, :count].T if turned.features else found[:count]
        if boxes is None:
            return RegionRecord(features)
        return RegionRecord(features, boxes[:, :count].T if turned.boxes else boxes[:count])


def open_hdf5(path: Path) -> RegionReader:
    """Return the reader of the file's layout."""
    try:
        with _open(path) as file:
            _refuse_links(file, path)
            kind = RegionHdf5 if _named(file, _FEATURES) else RegionHdf5Images
        return kind(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file fails within h5py in any of a dozen ways
        message = str(error)
        raise ValueError(message if str(path) in message else f"{path}: {error}") from error


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path}: not HDF5, cut short or damaged ({error})") from error


def _refuse_links(file: h5py.File, path: Path) -> None:
    """Raise ValueError at links: HDF5 may link to any other file."""
    for name in file:
        if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
            raise ValueError(f"{path}: {name!r} is a link to another file; copy what it leads to")


def _refuse_elsewhere(found: h5py.Dataset, where: str) -> None:
    """Raise ValueError at numbers that lie in another file, or unpack to any size."""
    if found.external or found.is_virtual:
        raise ValueError(f"{where}: its numbers lie in another file; copy them into this one")
    if found.chunks and math.prod(found.chunks) * found.dtype.itemsize > MAX_CHUNK:
        raise ValueError(f"{where}: chunks of more than {MAX_CHUNK >> 20} MB")


def _named(file: h5py.File, names: tuple[str, ...]) -> str | None:
    for name in names:
        if isinstance(found := file.get(name), h5py.Dataset):
            _refuse_elsewhere(found, f"{file.filename}: {name}")
            return name
    return None
