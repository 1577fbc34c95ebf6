"""Checkpoints: whole or not there, and nothing in them is executed when they are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ascl_plugin.disk import check_sums, remove_folder, write_sums, written

_FILES = ("model.safetensors", "training.pt")
_NAME = re.compile(r"checkpoint-(\d+)")

#: Options that may be others when a run goes on: they do not change what a step does.
FREE = {
    "output_dir", "resume", "num_workers", "cache_dir", "cache_images", "cache_texts",
    "save_every", "log_every", "log_with", "eval_batch_size", "num_threads", "cpu",
    "data_root", "image_root", "annotations", "region_files", "pooled_files", "train_stream",
    "rerank_k", "rerank_text_neighbors", "save_scores", "start_from", "cached_chunk",
    "skip_bad_batches",
}  # fmt: skip


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
    tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}

    with written(path) as aside:
        aside.mkdir()
        save_file(tensors, aside / _FILES[0])
        with open(aside / _FILES[1], "wb") as file:  # of a path torch does not say what is wrong
            torch.save(state, file)
        write_sums(aside, _FILES)
    for old in checkpoints(folder)[:-keep]:
        remove_folder(old)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(p.name.partition("-")[2]))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights, state) of a checkpoint, on the CPU.

    One of an earlier version, without `SHA256SUMS`, is loaded without that check.

    Raises:
        ValueError: a file is missing, holds more than data, or is not byte for byte what was
            written; the message names it.
    """
    try:
        check_sums(path)
        weights = load_file(path / "model.safetensors")
        state = torch.load(path / "training.pt", map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read ({error}); delete this folder to go on from the one before"
        ) from error
    return weights, state


def check_same_run(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    """Sees that options which change what a step does have not changed half-way.

    Args:
        old: options of the run that wrote the checkpoint.
        new: of the run that is to go on from it.
        path: of the checkpoint.

    Raises:
        ValueError: one has; the message names it.
    """
    changed = [k for k in new if k not in FREE and k in old and new[k] != old[k]]
    if changed:
        name = changed[0]
        raise ValueError(
            f"{path} was written with {name}={old[name]!r}, this run has {new[name]!r}; resume "
            "with the same options or choose another output_dir"
        )
