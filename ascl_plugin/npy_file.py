"""Arrays in `.npy` and `.npz` files: nothing is unpickled, and no header is believed unmeasured."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# numpy reads a header as a Python literal, and says in many ways that it is none
_NO_HEADER = (ValueError, SyntaxError, TokenError, RecursionError, MemoryError, TypeError)
_NO_ZIP = (
    ValueError, OSError, EOFError, RuntimeError, KeyError, MemoryError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
_CHUNK = 2**24  # bytes unpacked at once


class NpyHeader(NamedTuple):
    """What a `.npy` file says of itself.

    Attributes:
        shape, dtype: of the array.
        by_column: whether it is stored column by column.
        offset: bytes before the first number.
        nbytes: of all numbers.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    by_column: bool
    offset: int
    nbytes: int


def read_header(file: BinaryIO, size: int) -> NpyHeader:
    """The header of a `.npy` file of `size` bytes, read from its start.

    Raises:
        ValueError: no such header; Python objects; sizes below 0; more numbers than the file holds.
    """
    try:
        version = npy.read_magic(file)
        if version not in _READERS:
            raise ValueError(f"version {version}")
        shape, by_column, dtype = _READERS[version](file)
    except _NO_HEADER as error:
        raise ValueError(f"not a .npy file of numbers ({_first_line(error)})") from error
    if dtype.hasobject:
        raise ValueError("expected numbers, got Python objects, which are never loaded")
    offset, nbytes = file.tell(), math.prod(shape) * dtype.itemsize
    if len(shape) > 32 or not all(0 <= length < 2**62 for length in shape):
        raise ValueError("no array has such a shape")
    if size < offset + nbytes:
        raise ValueError(f"cut short, {size} bytes; shape {shape} needs {offset + nbytes}")
    return NpyHeader(shape, dtype, by_column, offset, nbytes)


class NpyFile:
    """A float array in a `.npy` file, row by row.

    No file stays open, so a copy works in any process.

    Args:
        path: of the file.

    Attributes:
        shape, dtype: of the whole array.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no `.npy`; Python objects or no floats in it; rows of no numbers; column-major;
            cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        header = _header_of(self.path)
        self.shape, self.dtype, self.offset = header.shape, header.dtype, header.offset
        if self.dtype.kind != "f":
            raise ValueError(f"{path}: expected floats, got {self.dtype}")
        if header.by_column and len(self.shape) > 1:
            raise ValueError(f"{path}: column-major; save np.ascontiguousarray(...) of it")
        if 0 in self.shape[1:]:  # any number of such rows takes no room
            raise ValueError(f"{path}: shape {self.shape} has rows of no numbers")

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


def map_npy(path: str | Path, mode: Any = "c") -> np.memmap:
    """The array of a `.npy` file, mapped: `mode` as of `np.memmap`, "c" copies what is written to.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no `.npy`, Python objects, no numbers, cut short; the message names the file.
    """
    header = _header_of(Path(path))
    if not header.nbytes:
        raise ValueError(f"{path}: shape {header.shape} has no numbers in it")
    order: Any = "F" if header.by_column else "C"
    return np.memmap(path, header.dtype, mode, header.offset, header.shape, order)


def read_npz(
    path: str | Path, names: Sequence[str] | None = None, limit: int | None = None
) -> dict[str, np.ndarray]:
    """Arrays of an `.npz` by name; others in it, pickles among them, are left alone.

    Args:
        path: of the file.
        names: of the arrays wanted, as far as they are there; None: all.
        limit: bytes an array may unpack to; None: any.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no `.npz`, damaged, encrypted, too large, Python objects; the message names the
            file.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if names is None or name in names:
                    if limit is not None and member.file_size > limit:
                        raise ValueError(f"{member.filename} unpacks to {member.file_size} bytes")
                    with archive.open(member) as file:
                        found[name] = _unpacked(file, member.file_size, member.filename)
    except FileNotFoundError:
        raise
    except _NO_ZIP as error:
        raise ValueError(f"{path}: {_first_line(error)}") from error
    return found


def _unpacked(file: Any, size: int, name: str) -> np.ndarray:
    try:
        header = read_header(file, size)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    # room that is claimed and never written to costs no memory
    values = np.empty(header.shape, header.dtype, "F" if header.by_column else "C")
    flat: Any = values.ravel("K").view(np.uint8)
    room, filled = memoryview(flat), 0
    while filled < header.nbytes:
        got = file.readinto(room[filled : filled + _CHUNK])
        if not got:
            raise ValueError(f"{name}: cut short")
        filled += got
    file.read(1)  # at the end the sum of all bytes is checked
    return values


def _header_of(path: Path) -> NpyHeader:
    with open(path, "rb") as file:
        try:
            return read_header(file, os.fstat(file.fileno()).st_size)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
