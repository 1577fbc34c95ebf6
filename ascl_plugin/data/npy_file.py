"""Rows of a `.npy` file read from the disk one by one: nothing is mapped, nothing unpickled."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.lib import format as npy


class NpyFile:
    """A float array in a `.npy` file, row by row.

    No file stays open, so a copy works in any process.

    Args:
        path: of the file.

    Attributes:
        shape, dtype: of the whole array.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no `.npy`; Python objects or no floats in it; column-major; cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        try:
            with open(path, "rb") as file:
                version = npy.read_magic(file)
                if version not in readers:
                    raise ValueError(f"version {version}")
                self.shape, by_column, self.dtype = readers[version](file)
                self.offset = file.tell()
        except ValueError as error:
            raise ValueError(f"{path}: not a .npy file of numbers ({error})") from error
        if self.dtype.kind != "f":
            told = "Python objects, which are never loaded" if self.dtype.hasobject else self.dtype
            raise ValueError(f"{path}: expected floats, got {told}")
        if by_column and len(self.shape) > 1:
            raise ValueError(f"{path}: column-major; save np.ascontiguousarray(...) of it")
        needed = self.offset + math.prod(self.shape) * self.dtype.itemsize
        if self.path.stat().st_size < needed:
            raise ValueError(
                f"{path}: cut short, {self.path.stat().st_size} bytes; shape {self.shape} needs "
                f"{needed}"
            )

    def row(self, index: int, count: int | None = None) -> np.ndarray:
        """Row `index` of the first axis; of its own first axis, the first `count`."""
        inner = self.shape[1:]
        if count is not None:
            inner = (min(count, inner[0]), *inner[1:])
        start = self.offset + index * math.prod(self.shape[1:]) * self.dtype.itemsize
        return self._read(start, inner)

    def first(self, count: int) -> np.ndarray:
        """The first `count` rows."""
        return self._read(self.offset, (min(count, self.shape[0]), *self.shape[1:]))

    def _read(self, start: int, shape: tuple[int, ...]) -> np.ndarray:
        size = math.prod(shape)
        values = np.fromfile(self.path, self.dtype, size, offset=start)
        if values.size != size:
            raise ValueError(f"{self.path}: cut short while it was read")
        return values.reshape(shape)
