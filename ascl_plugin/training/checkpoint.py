"""Checkpoints and the best model: complete or absent, and nothing in them is executed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import OptimizerStateType

from ascl_plugin.disk import check_sums, remove_folder, write_sums, written

_FILES = ("model.safetensors", "training.pt")
_NAME = re.compile(r"checkpoint-(\d+)")

#: Options that may change when a run is resumed: they do not change what a step does.
FREE = {
    "output_dir", "resume", "resume_auto", "num_workers", "cache_dir", "cache_images",
    "cache_texts",
    "feature_memory",
    "save_every", "log_every", "log_with", "eval_batch_size", "num_threads", "cpu",
    "data_root", "image_root", "annotations", "region_files", "pooled_files", "train_stream",
    "rerank_k", "rerank_text_neighbors", "save_scores", "start_from", "cached_chunk",
    "skip_bad_batches",
}  # fmt: skip


class TrainingState(TypedDict):
    """Contents of a checkpoint besides weights: tensors, numbers, strings, lists and dicts."""

    optimizer: OptimizerStateType
    scaler: dict[str, object] | None
    step: int
    epoch: int
    batch: int
    feed: list[list[int]] | None
    average: dict[str, Tensor] | None
    best: dict[str, float]
    bad_validations: int
    skipped_steps: list[int]
    options: dict[str, object]


def save_checkpoint(
    folder: Path, step: int, weights: dict[str, Tensor], state: Mapping[str, object], keep: int = 2
) -> Path:
    """Write `checkpoint-STEP` aside, move it into place, and remove all but the last `keep`."""
    path = folder / f"checkpoint-{step:07d}"
    tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}

    with written(path) as aside:
        aside.mkdir()
        save_file(tensors, aside / _FILES[0])
        with open(aside / _FILES[1], "wb") as file:  # given a path, torch does not name errors
            torch.save(state, file)
        write_sums(aside, _FILES)
    for old in checkpoints(folder)[:-keep]:
        remove_folder(old)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(p.name.partition("-")[2]))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], TrainingState]:
    """Return weights and state of a checkpoint, on the CPU.

    Raises:
        ValueError: a file is missing, holds more than data, or is not byte for byte as it was
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


def check_best(folder: Path) -> None:
    """Check that the best model of a run is what was written.

    Raises:
        ValueError: it is not.
    """
    best = folder / "best"
    try:
        check_sums(best)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{best} is damaged ({error}); put back a copy, or delete this folder and --resume: "
            "the best of the validations still to come takes its place"
        ) from error


def check_same_run(old: dict[str, object], new: dict[str, object], path: Path) -> None:
    """Check that no option has changed, from a checkpoint on, which changes what a step does.

    Raises:
        ValueError: an option has changed; the message names it.
    """
    before, now = dotted(old), dotted(new)
    for name in [*now, *before]:
        if name not in FREE and before.get(name) != now.get(name):
            raise ValueError(
                f"{path} was written with {name}={before.get(name)!r}, this run has "
                f"{now.get(name)!r}; resume with the same options or choose another output_dir"
            )


def dotted(options: Mapping[str, object]) -> dict[str, object]:
    """Return options with those of components by dotted name: `image_encoder.width`."""
    flat: dict[str, object] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{option}": own for option, own in value.items()}
        else:
            flat[name] = value
    return flat
