"""A score matrix on disk that a killed run goes on with: what is not scored yet is NaN.

``sims.npy`` is filled as ``sims.npy.part`` and moved into place when it is full; beside it stays
``sims.npy.json``, which says of what inputs the scores are. The record of finished blocks is the
matrix itself, so a run may go on with other blocks, or with more processes, than it began with.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from ascl_plugin.disk import into_place, write_text, written
from ascl_plugin.npy_file import map_npy

CHUNK = 2**24  # bytes hashed or written at once
OTHER = {"images": "other images", "texts": "other texts", "scorer": "another scorer"}
PLAIN = (bool, int, float, str, tuple, type(None))


def fingerprint(scorer: Any, images: Any, texts: Any, more: str = "") -> dict[str, Any]:
    """What scores depend on: the shape, and hashes of both features and of the scorer.

    A module is known by its weights and its plain options, any other scorer by its name alone. All
    bytes are read once.
    """
    state: list[Any] = [_name(scorer), more]
    if isinstance(scorer, nn.Module):
        for name, module in scorer.named_modules():
            options = {
                k: v
                for k, v in vars(module).items()
                if k[0] != "_" and k != "training" and isinstance(v, PLAIN)
            }
            state += [name, _name(module), repr(sorted(options.items()))]
        state += [part for item in scorer.state_dict().items() for part in item]
    return {
        "shape": [len(images), len(texts)],
        "images": _hash([getattr(images, f.name) for f in fields(images)]),
        "texts": _hash([getattr(texts, f.name) for f in fields(texts)]),
        "scorer": _hash(state),
    }


def write_matrix(path: Path, sim: Tensor) -> None:
    """A finished (I, T) matrix as .npy, written aside and moved into place."""
    with written(path) as aside, open(aside, "wb") as file:
        np.save(file, sim.numpy(), allow_pickle=False)


def begin(path: Path, inputs: dict[str, Any]) -> None:
    """Makes the file to fill, or sees that the one there is of these inputs.

    Args:
        path: of the finished matrix.
        inputs: its `fingerprint`.

    Raises:
        ValueError: no .npy; nothing to score; scores are there that are of other inputs, or nobody
            knows of which.
    """
    if 0 in inputs["shape"]:
        raise ValueError(f"{path}: there is nothing to score, (images, texts) is {inputs['shape']}")
    if path.suffix != ".npy":
        raise ValueError(f"{path}: scores are written as .npy")
    part, record = beside(path)
    there = path if path.exists() else part
    if there.exists():
        _check(there, record, inputs)
        return
    write_text(record, json.dumps(inputs, indent=2) + "\n")
    with written(part) as aside, open(aside, "wb") as file:
        _write_nan(file, *inputs["shape"])


def beside(path: Path) -> tuple[Path, Path]:
    """The file being filled, and the record of what it is filled with."""
    return path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.json")


def open_matrix(path: Path) -> Tensor:
    """The matrix, mapped: the finished one as a private copy-on-write, else the one to fill."""
    part, _ = beside(path)
    if path.exists():
        return torch.from_numpy(map_npy(path))
    return torch.from_numpy(map_npy(part, "r+"))


def finish(path: Path) -> None:
    """Moves the filled file into place."""
    part, _ = beside(path)
    if part.exists():
        into_place(part, path)


def missing(matrix: Tensor) -> int:
    """How many scores are not there yet."""
    rows = max(1, CHUNK // 4 // max(1, matrix.shape[1]))
    return sum(int(chunk.isnan().sum()) for chunk in matrix.split(rows))


def _check(there: Path, record: Path, inputs: dict[str, Any]) -> None:
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        shape = list(map_npy(there, "r").shape)
        different = [name for name, value in inputs.items() if known[name] != value]
    except FileNotFoundError:
        raise ValueError(
            f"{there} is there without {record.name}, so nothing says what scores it holds; "
            "delete it or give another path"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise ValueError(f"{there} or {record.name} is damaged; delete both ({error})") from error
    if different:
        got, name = known["shape"], different[0]
        of = f"shape {repr(got)[:80]}, not {inputs['shape']}" if name == "shape" else OTHER[name]
        raise ValueError(
            f"{there} holds scores of {of}; delete it and {record.name}, or give another path"
        )
    if shape != known["shape"]:
        told = repr(known["shape"])[:80]
        raise ValueError(f"{there} is damaged: shape {shape}, its record says {told}")


def _write_nan(file: BinaryIO, images: int, texts: int) -> None:
    """Written out rather than left sparse: a full disk says so now, not in the midst of a run."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (images, texts)}
    np.lib.format.write_array_header_1_0(file, header)
    left = images * texts
    chunk = np.full(min(left, CHUNK // 4), np.nan, dtype="<f4")
    while left:
        file.write(chunk[:left].tobytes())
        left -= len(chunk[:left])


def _name(thing: Any) -> str:
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def _hash(parts: list[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if not isinstance(part, Tensor):
            digest.update(f"{part}\n".encode())
            continue
        digest.update(f"{part.dtype} {tuple(part.shape)}\n".encode())
        values = part.detach() if part.ndim else part.detach()[None]
        for chunk in values.split(max(1, CHUNK * len(values) // max(1, values.nbytes))):
            digest.update(chunk.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
