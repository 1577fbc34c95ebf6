"""Similarity matrices and caption maps in files: npy, npz and safetensors; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.disk import written
from ascl_plugin.npy_file import map_npy, read_npz
from ascl_plugin.scores import Array

SUFFIXES = (".npy", ".npz", ".safetensors")
_CURES = {
    **dict.fromkeys(
        (".pt", ".pth", ".pkl", ".pickle"),
        "a pickle can run code, so none is read; write it as np.save('FILE.npy', tensor.numpy())",
    ),
    **dict.fromkeys(
        (".csv", ".tsv", ".txt"),
        "write text as np.save('FILE.npy', np.loadtxt('FILE.csv', delimiter=','))",
    ),
}


def read_array(path: Path, name: str) -> Array:
    """Return the one array of a file, or the one called `name` if there are several.

    Args:
        path: ``.npy`` (mapped, not read; the file cannot be written through it), ``.npz`` or
            ``.safetensors``.
        name: the key, as "sim".

    Returns:
        Numpy from npy and npz, a CPU tensor from safetensors (which may be bfloat16).

    Raises:
        FileNotFoundError: no such file.
        ImportError: safetensors is not installed.
        ValueError: another suffix, an unreadable file, pickled objects, several arrays and none
            called `name`.
    """
    check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        if path.suffix == ".npy":
            return _numbers(map_npy(path), path)
        if path.suffix == ".npz":
            arrays = read_npz(path, [name]) or read_npz(path)
            return _numbers(arrays[_key(path, list(arrays), name)], path)
        return _read_safetensors(path, name)
    except MemoryError as error:
        raise ValueError(f"{path}: does not fit into memory") from error


def read_caption_to_image(path: Path) -> np.ndarray:
    """Return the image index of each caption: ``.npy``, or one integer a line.

    Blank lines at the end of a text are no captions.

    Returns:
        (T,) as in the file; `retrieval_metrics` checks that it fits a matrix.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file does not hold such a list; names the line.
    """
    if path.suffix == ".npy":
        return np.asarray(read_array(path, "caption_to_image"))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: neither .npy nor text: {error}") from error
    lines = text.rstrip().splitlines()
    found = np.empty(len(lines), np.int64)
    for number, line in enumerate(lines):
        try:
            found[number] = int(line)
        except (ValueError, OverflowError):
            place = f"{path}: line {number + 1} is {line!r:.80}"
            cure = "" if line.strip() else "; remove the blank line"
            raise ValueError(f"{place}, expected an integer of 64 bits{cure}") from None
    return found


def _numbers(array: np.ndarray, path: Path) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: expected numbers, got {array.dtype}")
    return array


def reranked_files(path: Path) -> list[Path]:
    """Return the files that `write_reranked` writes for both directions."""
    if path.suffix != ".npy":
        return [path]
    return [path.with_suffix(f".{name}.npy") for name in ("i2t", "t2i")]


def write_reranked(path: Path, arrays: Mapping[str, Array]) -> list[Path]:
    """Write named arrays in the format of the suffix of `path`.

    npz and safetensors hold them by name in one file; npy holds one array, so of two ``OUT.npy``
    becomes ``OUT.i2t.npy`` and ``OUT.t2i.npy``. Each file is written aside and moved into place.
    No format copies an array.

    Returns:
        The files written.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: another suffix; bfloat16 for a numpy format.
    """
    check_suffix(path)
    if path.suffix == ".safetensors":
        tensors = {name: torch.as_tensor(value) for name, value in arrays.items()}
        save = _safetensors().torch.save_file
        with written(path) as aside:
            save(tensors, aside)
        return [path]
    plain: dict[str, Any] = {name: _as_numpy(value, path) for name, value in arrays.items()}
    if path.suffix == ".npz":
        with written(path) as aside, open(aside, "wb") as file:
            np.savez(file, **plain)
        return [path]
    paths = [path.with_suffix(f".{name}.npy") for name in plain] if len(plain) > 1 else [path]
    for each, value in zip(paths, plain.values(), strict=True):
        with written(each) as aside, open(aside, "wb") as file:
            np.save(file, value, allow_pickle=False)
    return paths


def check_suffix(path: Path) -> None:
    """Refuse a file of an unknown format; the error says how to convert it."""
    if path.suffix not in SUFFIXES:
        cure = f" ({_CURES[path.suffix]})" if path.suffix in _CURES else ""
        known = ", ".join(SUFFIXES)
        raise ValueError(f"{path}: unknown format {path.suffix!r}; use {known}{cure}")


def _read_safetensors(path: Path, name: str) -> Tensor:
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="pt") as tensors:
            return tensors.get_tensor(_key(path, list(tensors.keys()), name))
    except (safetensors.SafetensorError, OSError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _key(path: Path, keys: list[str], name: str) -> str:
    if len(keys) == 1:
        return keys[0]
    if name in keys:
        return name
    found = ", ".join(sorted(keys)) or "none"
    raise ValueError(f"{path}: expected one array or one named {name!r}, found {found}")


def _as_numpy(value: Array, path: Path) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if value.dtype == torch.bfloat16:
        raise ValueError(f"{path}: numpy has no bfloat16; write to a .safetensors file")
    return value.numpy()


def _safetensors() -> ModuleType:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            'safetensors files need safetensors: pip install "ascl-plugin[recipes]"'
        ) from error
    return safetensors
