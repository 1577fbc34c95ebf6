"""A score matrix on disk that an interrupted run continues: NaN marks a missing score.

``sims.npy`` is filled as ``sims.npy.part`` and renamed when it is full; ``sims.npy.json`` beside it
identifies the inputs. No other state is kept, so a run may continue with other blocks, or with more
processes, than it began with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from ascl_plugin.disk import into_place, write_text, written
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.npy_file import map_npy

CHUNK = 2**24  # bytes hashed or counted at once
OTHER = {"images": "other images", "texts": "other texts", "scorer": "another scorer"}
PLAIN = (bool, int, float, str, tuple, type(None))


class Inputs(TypedDict):
    """Everything that scores depend on: their shape, and hashes of features and scorer."""

    shape: list[int]
    images: str
    texts: str
    scorer: str


def fingerprint(scorer: object, images: ImageFeatures, texts: TextFeatures) -> Inputs:
    """Return the `Inputs` of a matrix; reads all bytes once.

    A module is identified by its weights and plain options, any other scorer by its name only.
    """
    state: list[object] = [_name(scorer)]
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


def write_matrix(path: Path, sim: Tensor, caption_to_image: np.ndarray | None = None) -> None:
    """Write a finished (I, T) matrix as .npy, and its map beside it; no reader sees half of it."""
    arrays = {path: sim.numpy()}
    if caption_to_image is not None:
        arrays[caption_map_beside(path)] = caption_to_image
    for each, values in arrays.items():
        with written(each) as aside, open(aside, "wb") as file:
            np.save(file, values, allow_pickle=False)


def caption_map_beside(scores: Path) -> Path:
    """Return the file of the caption map that belongs to a file of scores."""
    return scores.with_suffix(".caption_to_image.npy")


def begin(path: Path, inputs: Inputs) -> None:
    """Make the file to fill, or check that an existing one is of these inputs.

    Args:
        path: path of the finished matrix.
        inputs: its `fingerprint`.

    Raises:
        ValueError: no .npy; nothing to score; the existing file is of other or unknown inputs.
    """
    if 0 in inputs["shape"]:
        raise ValueError(f"{path}: there is nothing to score, (images, texts) is {inputs['shape']}")
    if path.suffix != ".npy":
        raise ValueError(f"{path}: scores are written as .npy")
    part, record = beside(path)
    there = path if path.exists() else part
    if there.exists():
        _check_matrix(there, record, inputs)
        return
    write_text(record, json.dumps(inputs, indent=2) + "\n")
    with written(part) as aside, open(aside, "wb") as file:
        images, texts = inputs["shape"]
        header = {"descr": "<f4", "fortran_order": False, "shape": (images, texts)}
        np.lib.format.write_array_header_1_0(file, header)
        row = np.full(texts, np.nan, "<f4").tobytes()
        for _ in range(images):  # not left sparse: a full disk is an error now, not in the middle
            file.write(row)


def beside(path: Path) -> tuple[Path, Path]:
    """Return the paths of the file being filled and of the record of its inputs."""
    return path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.json")


def open_matrix(path: Path) -> Tensor:
    """Return the mapped matrix: the finished one copy-on-write, else the one to fill."""
    part, _ = beside(path)
    return torch.from_numpy(map_npy(path) if path.exists() else map_npy(part, "r+"))


def finish(path: Path) -> None:
    """Rename the filled file to `path`, if that has not happened yet."""
    part, _ = beside(path)
    if part.exists():
        into_place(part, path)


def missing(matrix: Tensor) -> int:
    """Return the number of missing scores."""
    rows = max(1, CHUNK // 4 // max(1, matrix.shape[1]))
    return sum(int(chunk.isnan().sum()) for chunk in matrix.split(rows))


def check_record(there: Path, record: Path, inputs: Mapping[str, Any]) -> None:
    """Check that a file is of these inputs, by the record beside it.

    Raises:
        ValueError: no record, a damaged one, or one of other inputs.
    """
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        different = [name for name, value in inputs.items() if known[name] != value]
    except FileNotFoundError:
        raise ValueError(
            f"{there} is there without {record.name}, so its inputs are unknown; "
            "delete it or give another path"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise _damaged(there, record, error) from error
    if different:
        name = different[0]
        got = f"{name} {repr(known[name])[:80]}, not {inputs[name]}"
        raise ValueError(
            f"{there} holds scores of {OTHER.get(name, got)}; delete it and {record.name}, or give "
            "another path"
        )


def _check_matrix(there: Path, record: Path, inputs: Inputs) -> None:
    check_record(there, record, inputs)
    try:
        shape = list(map_npy(there, "r").shape)
    except (ValueError, OSError) as error:
        raise _damaged(there, record, error) from error
    if shape != inputs["shape"]:
        raise ValueError(f"{there} is damaged: shape {shape}, its record says {inputs['shape']}")


def _damaged(there: Path, record: Path, error: Exception) -> ValueError:
    return ValueError(f"{there} or {record.name} is damaged; delete both ({error})")


def _name(thing: Any) -> str:
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def _hash(parts: list[object]) -> str:
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
