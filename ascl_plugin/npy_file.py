"""Arrays in `.npy` and `.npz` files: nothing is unpickled, headers are checked against sizes."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import IO, Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy

_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# errors of numpy for a header that is no Python literal
_NO_HEADER = (ValueError, SyntaxError, TokenError, RecursionError, MemoryError, TypeError)
_NO_ZIP = (
    ValueError, OSError, EOFError, RuntimeError, KeyError, MemoryError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip


class NpyHeader(NamedTuple):
    """The header of a `.npy` file.

    Attributes:
        shape, dtype: of the array.
        by_column: True if it is stored column by column.
        offset: bytes before the first number.
        nbytes: bytes of all numbers.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    by_column: bool
    offset: int
    nbytes: int


def read_header(file: IO[bytes], size: int) -> NpyHeader:
    """Read the header of a `.npy` file of `size` bytes from its start.

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
    """A float array in a `.npy` file, read row by row; no file stays open between reads.

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
        """Return row `index`; of a row with several axes, at most `count` along its first."""
        inner = self.shape[1:]
        if count is not None:
            inner = (min(count, inner[0]), *inner[1:])
        start = self.offset + index * math.prod(self.shape[1:]) * self.dtype.itemsize
        return self._read(start, inner)

    def first(self, count: int) -> np.ndarray:
        """Return the first `count` rows."""
        return self._read(self.offset, (min(count, self.shape[0]), *self.shape[1:]))

    def _read(self, start: int, shape: tuple[int, ...]) -> np.ndarray:
        size = math.prod(shape)
        values = np.fromfile(self.path, self.dtype, size, offset=start)
        if values.size != size:
            raise ValueError(f"{self.path}: cut short while it was read")
        return values.reshape(shape)


def map_npy(path: str | Path, mode: Literal["r", "r+", "c"] = "c") -> np.memmap:
    """Map the array of a `.npy` file; `mode` is that of `np.memmap`, "c" for copy-on-write.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no `.npy`, Python objects, no numbers, cut short; the message names the file.
    """
    header = _header_of(Path(path))
    if not header.nbytes:
        raise ValueError(f"{path}: shape {header.shape} has no numbers in it")
    order: Literal["F", "C"] = "F" if header.by_column else "C"
    return np.memmap(path, header.dtype, mode, header.offset, header.shape, order)


def read_npz(
    path: str | Path, names: Sequence[str] | None = None, limit: int | None = None
) -> dict[str, np.ndarray]:
    """Return arrays of an `.npz` by name; other members, such as pickles, are not read.

    Args:
        path: path of the file.
        names: names of the arrays wanted, as far as they are there; None: all.
        limit: maximum number of bytes that an array may unpack to; None: any.

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


def _unpacked(file: IO[bytes], size: int, name: str) -> np.ndarray:
    try:
        read_header(file, size)
        file.seek(0)
        values = npy.read_array(file, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    file.read(1)  # zipfile compares the checksum at the end
    return values


def _header_of(path: Path) -> NpyHeader:
    with open(path, "rb") as file:
        try:
            return read_header(file, os.fstat(file.fileno()).st_size)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
