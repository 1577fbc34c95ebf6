"""Checkpoints: whole or not there, and nothing in them is executed when they are read."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_NAME = re.compile(r"checkpoint-(\d+)")


def save_checkpoint(
    folder: Path, step: int, weights: dict[str, Tensor], state: dict[str, Any], keep: int = 2
) -> Path:
    """Writes `checkpoint-STEP` aside, moves it into place, and removes all but the last `keep`.

    Args:
        folder: of the run.
        step: optimiser steps done.
        weights: tensors by name.
        state: optimiser state, counters and the like: tensors, numbers, strings, lists, dicts.
    """
    path = folder / f"checkpoint-{step:07d}"
    aside = folder / f".{path.name}.writing"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in weights.items()}, aside / "model.safetensors"
    )
    torch.save(state, aside / "training.pt")
    for file in aside.iterdir():  # on disk before the name is: a power cut leaves no empty file
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    if path.exists():
        shutil.rmtree(path)
    os.replace(aside, path)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(p.name.partition("-")[2]))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights, state) of a checkpoint, on the CPU.

    Raises:
        ValueError: a file is missing, damaged or holds more than data; the message names it.
    """
    try:
        weights = load_file(path / "model.safetensors")
        state = torch.load(path / "training.pt", map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read ({error}); delete this folder to go on from the one before"
        ) from error
    return weights, state


def replace_folder(path: Path, write: Any) -> None:
    """Has `write(folder)` fill a folder aside, then puts it in the place of `path`."""
    aside = path.with_name(f".{path.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    os.replace(aside, path)
    shutil.rmtree(old, ignore_errors=True)
