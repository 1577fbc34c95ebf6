"""Region features of images, looked up by image id, whatever file holds them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAX_BYTES = 2**26  # of one image's features: 100 regions of 2048 numbers take 0.8 MB
_COCO = re.compile(r"^(?:COCO_(?:train|val|test)\d{4}_)?0*(\d+)$")
_PICTURES = (".jpg", ".jpeg", ".png")


class Regions(NamedTuple):
    """What a file holds of one image.

    Attributes:
        features: (K, D), of the file's float type.
        boxes: (K, 4) float32, or None where the file has none.
    """

    features: np.ndarray
    boxes: np.ndarray | None = None


def normal_id(image_id: str) -> str:
    """The name under which an image is looked up, so that files and captions find each other.

    A picture's suffix falls, and so do COCO's prefix and leading zeros before a bare number.

    >>> normal_id("COCO_val2014_000000000139.jpg"), normal_id("000000000139"), normal_id("139")
    ('139', '139', '139')
    >>> normal_id("1000268201_693b08cb0e.jpg")
    '1000268201_693b08cb0e'
    """
    name = image_id.strip()
    stem, dot, suffix = name.rpartition(".")
    if dot and f".{suffix.lower()}" in _PICTURES:
        name = stem
    number = _COCO.match(name)
    return number[1] if number else name


class RegionReader(ABC):
    """Base of all formats: a dictionary on disk from image id to `Regions`.

    Entries are read when asked for, by seek and read, so what is resident is what is held. A reader
    may be sent to another process, or forked into it.

    Args:
        path: of the file or folder, for messages.
        ids: of the images, as the file has them.
        dim: width D of a feature.
        dtype: of the features in the file.
        has_boxes: whether the file has boxes.

    Raises:
        ValueError: no images; two ids that are looked up under one name.
    """

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

    def regions(self, image_id: str, limit: int | None = None) -> Regions:
        """Features of an image, by any spelling of its id that `normal_id` makes equal.

        Args:
            image_id: of the image.
            limit: the first so many regions.

        Raises:
            KeyError: the file has no such image.
            ValueError: an entry that is damaged; the message names file and image.
        """
        entry = self._entries.get(normal_id(image_id))
        if entry is None:
            raise KeyError(f"{self.path}: no features of image {image_id!r}")
        return self.read(entry, limit)

    def count(self, entry: int) -> int:
        """How many regions entry number `entry` has."""
        found = self._count(entry)
        if not 0 < found * self.dim * self.dtype.itemsize <= MAX_BYTES:
            raise ValueError(
                f"{self.where(entry)} has {found} regions of width {self.dim}; expected 1 or "
                f"more, and {MAX_BYTES >> 20} MB at most"
            )
        return found

    def read(self, entry: int, limit: int | None = None) -> Regions:
        """Entry number `entry`, in the order of `ids`; as `regions`."""
        found = self.count(entry)
        count = found if limit is None else min(found, limit)
        features, boxes = self._read(entry, count)
        if features.shape != (count, self.dim):
            raise ValueError(
                f"{self.where(entry)} has features of shape {features.shape}, expected "
                f"{(count, self.dim)}"
            )
        if not np.isfinite(features).all():
            raise ValueError(f"{self.where(entry)} has features that are not finite")
        if boxes is not None:
            if boxes.shape != (count, 4):
                raise ValueError(
                    f"{self.where(entry)} has boxes of shape {boxes.shape}, expected {(count, 4)}"
                )
            if boxes.dtype.kind not in "fiu":
                raise ValueError(f"{self.where(entry)} has boxes of {boxes.dtype}, expected floats")
            boxes = boxes.astype(np.float32, copy=False)
        return Regions(features, boxes)

    def where(self, entry: int) -> str:
        """File and image, for messages."""
        return f"{self.path}: image {self.ids[entry]!r}"

    @abstractmethod
    def _count(self, entry: int) -> int:
        """Regions of an entry, as cheaply as the format allows."""

    @abstractmethod
    def _read(self, entry: int, count: int) -> Regions:
        """The first `count` regions of an entry."""


class Plan(NamedTuple):
    """All that a writer must know before the first image.

    Attributes:
        ids: of the images, in the order they will be written.
        counts: regions of each.
        dim: width D.
        dtype: of the features.
        has_boxes: whether boxes come with them.
    """

    ids: list[str]
    counts: list[int]
    dim: int
    dtype: np.dtype
    has_boxes: bool


class RegionWriter(ABC):
    """Base of writers: entries in order, into a file or folder that may have been begun.

    What `write` was given is in the file when it returns: a kill costs the entry under way alone.

    Args:
        part: where to write.
        plan: of the whole.
        done: entries that an earlier writer finished.
    """

    def __init__(self, part: Path, plan: Plan, done: int) -> None:
        self.part, self.plan, self.done = part, plan, done

    def put(self, start: int, values: np.ndarray) -> None:
        """Writes an array's bytes at place `start` of a file that is there."""
        with open(self.part, "r+b") as file:
            file.seek(start)
            file.write(np.ascontiguousarray(values).data)

    @abstractmethod
    def write(self, entry: int, regions: Regions) -> None:
        """Writes entry number `entry` of the plan."""


def refuse_as_name(image_id: str, where: str) -> str:
    """`image_id`, if a file or data set may be called so.

    Raises:
        ValueError: an id that would leave the folder, or that no file may have.
    """
    if not image_id or image_id.startswith(".") or re.search(r"[/\\\x00-\x1f:]", image_id):
        raise ValueError(f"{where}: image id {image_id!r} cannot be the name of a file")
    return image_id
