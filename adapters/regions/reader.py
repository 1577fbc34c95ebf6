"""Region features of images, looked up by image id, whatever file holds them."""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAX_BYTES = 2**26  # of one image's features: 100 regions of 2048 numbers take 0.8 MB
_COCO = re.compile(r"^(?:COCO_(?:train|val|test)\d{4}_)?0*(\d+)$")
_PICTURE = re.compile(r"\.(jpg|jpeg|png)$", re.IGNORECASE)


class RegionRecord(NamedTuple):
    """The entry of one image in a file.

    Attributes:
        features: (K, D), of the file's float type.
        boxes: (K, 4) float32, or None where the file has none.
    """

    features: np.ndarray
    boxes: np.ndarray | None = None


class Turned(NamedTuple):
    """Which arrays of an image are stored as (width, regions)."""

    features: bool = False
    boxes: bool = False


def normal_id(image_id: str) -> str:
    """Return the name under which an image is looked up, so that files and captions agree.

    A picture's suffix is dropped, and so are COCO's prefix and leading zeros before a bare number.

    >>> normal_id("COCO_val2014_000000000139.jpg"), normal_id("000000000139"), normal_id("139")
    ('139', '139', '139')
    >>> normal_id("1000268201_693b08cb0e.jpg")
    '1000268201_693b08cb0e'
    """
    name = _PICTURE.sub("", image_id.strip())
    number = _COCO.match(name)
    return number[1] if number else name


class RegionReader(ABC):
    """Base of all formats: a dictionary on disk from image id to `RegionRecord`.

    Entries are read when asked for, by seek and read; nothing else stays in memory. A reader may be
    pickled to another process, or forked into it.

    Args:
        path: file or folder, for messages.
        ids: image ids, as the file has them.
        dim: width D of a feature.
        dtype: type of the features in the file.
        has_boxes: True if the file has boxes.

    Raises:
        ValueError: no images; two ids that are looked up under one name.
    """

    note = ""  # what of the file was left out, for errors
    _said = False

    def __init__(
        self, path: Path, ids: Sequence[str], dim: int, dtype: np.dtype, has_boxes: bool
    ) -> None:
        self.path, self.ids, self.dim = path, ids, dim
        self.dtype, self.has_boxes = np.dtype(dtype), has_boxes
        self._entries: dict[str, int] = {}
        for entry, image_id in enumerate(ids):
            other = self._entries.setdefault(normal_id(image_id), entry)
            if other != entry:
                raise ValueError(
                    f"{path}: two entries for one image, {ids[other]!r} and {image_id!r}"
                )
        if not self._entries:
            raise ValueError(f"{path}: no images in it")

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, image_id: str) -> bool:
        return normal_id(image_id) in self._entries

    def entry(self, image_id: str) -> int:
        """Return the number of an image's entry.

        Raises:
            KeyError: the file has no such image.
        """
        entry = self._entries.get(normal_id(image_id))
        if entry is None:
            raise KeyError(f"{self.path}: no features of image {image_id!r}{self.note}")
        return entry

    def regions(self, image_id: str, limit: int | None = None) -> RegionRecord:
        """Return the entry of an image.

        Args:
            image_id: any spelling of the id that `normal_id` makes equal.
            limit: maximum number of regions; the first ones are taken.

        Raises:
            KeyError: the file has no such image.
            ValueError: a damaged entry; the message names file and image.
        """
        return self.read(self.entry(image_id), limit)

    def count(self, entry: int) -> int:
        """Return the number of regions of entry number `entry`."""
        found = self._count(entry)
        if not 0 < found * self.dim * self.dtype.itemsize <= MAX_BYTES:
            raise ValueError(
                f"{self.where(entry)} has {found} regions of width {self.dim}; expected at least 1 "
                f"and at most {MAX_BYTES >> 20} MB"
            )
        return found

    def read(self, entry: int, limit: int | None = None) -> RegionRecord:
        """Return entry number `entry`, in the order of `ids`; otherwise as `regions`."""
        found = self.count(entry)
        count = found if limit is None else min(found, limit)
        features, boxes = self._read(entry, count)
        _check_shape(features, (count, self.dim), f"{self.where(entry)} has features")
        if not np.isfinite(features).all():
            raise ValueError(f"{self.where(entry)} has features that are not finite")
        if boxes is not None:
            _check_shape(boxes, (count, 4), f"{self.where(entry)} has boxes")
            if boxes.dtype.kind not in "fiu":
                raise ValueError(f"{self.where(entry)} has boxes of {boxes.dtype}, expected floats")
            boxes = boxes.astype(np.float32, copy=False)
        return RegionRecord(features, boxes)

    def _turned(self, features: Sequence[int], boxes: Sequence[int] | None, where: str) -> Turned:
        """Return which of one image's whole arrays are stored the other way round, and warn once.

        Args:
            features: shape of all its features.
            boxes: shape of all its boxes, (K, 4) or (4, K); None: nothing proves anything.
            where: file and image, for errors.

        Raises:
            ValueError: features and boxes of different counts.
        """
        if boxes is None:
            return Turned()
        turned_boxes = len(boxes) == 2 and boxes[0] == 4 and boxes[1] != 4
        count = boxes[1] if turned_boxes else boxes[0]
        if len(features) != 2 or count not in features:
            raise ValueError(
                f"{where}: features of shape {tuple(features)}, boxes of shape {tuple(boxes)}; "
                "expected (regions, width) and (regions, 4) of one number of regions"
            )
        found = Turned(features[0] != count, turned_boxes)
        if any(found) and not self._said:
            self._said = True
            warnings.warn(
                f"{where}: stored as (width, regions), as its boxes show; read the other way round",
                stacklevel=4,
            )
        return found

    def where(self, entry: int) -> str:
        """Return file and image, for messages."""
        return f"{self.path}: image {self.ids[entry]!r}"

    @abstractmethod
    def _count(self, entry: int) -> int:
        """Return the number of regions of an entry, as cheaply as the format allows."""

    @abstractmethod
    def _read(self, entry: int, count: int) -> RegionRecord:
        """Return the first `count` regions of an entry."""


def _check_shape(values: np.ndarray, expected: tuple[int, int], what: str) -> None:
    if values.shape != expected:
        raise ValueError(f"{what} of shape {values.shape}, expected {expected}")


def refuse_as_name(image_id: str, where: str) -> None:
    """Raise ValueError if an id, or a part of it between slashes, cannot name a file below."""
    hidden = any(not part or part.startswith(".") for part in image_id.split("/"))
    if hidden or re.search(r"[\\\x00-\x1f:]", image_id):
        raise ValueError(f"{where}: image id {image_id!r} cannot be the name of a file")
