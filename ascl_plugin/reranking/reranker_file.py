"""Files of a fitted `Reranker`: safetensors; the method is a name, its options plain numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import Tensor

from ascl_plugin.disk import written

_FORMAT = "ascl_plugin.Reranker 1"


class _Foreign(ValueError):
    """A safetensors file of something else."""


@dataclass
class Contents:
    """The contents of a file: name and options of the method, bank queries seen, tensors."""

    method: str
    options: dict[str, object]
    bank_size: int
    summary: dict[str, Tensor]


def write(
    path: Path, method: str, options: dict[str, object], bank_size: int, summary: dict[str, Tensor]
) -> None:
    """Write a file, aside first and then moved into place."""
    safetensors = _safetensors()
    header = {
        "format": _FORMAT,
        "method": method,
        "options": json.dumps(options),
        "bank_size": str(bank_size),
    }
    with written(path) as aside:
        tensors = {name: values.cpu().contiguous() for name, values in summary.items()}
        safetensors.torch.save_file(tensors, aside, metadata=header)


def read(path: Path) -> Contents:
    """Read a file; its values are not checked against the method.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no safetensors file, or not one of a Reranker.
    """
    safetensors = _safetensors()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != _FORMAT:
                found = ", ".join(sorted(file.keys())) or "nothing"
                raise _Foreign(
                    f"{path}: not written by Reranker.save (it holds {found}); "
                    "a file of scores goes to Reranker.fit"
                )
            options = json.loads(header["options"])
            if not isinstance(options, dict):
                raise ValueError(f"options are {header['options']!r:.80}, expected names")
            summary = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if not summary:
                raise ValueError("it holds no numbers")
            return Contents(header["method"], options, int(header["bank_size"]), summary)
    except _Foreign:
        raise
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: no file of Reranker.save: {error}") from error


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            'saving and loading a Reranker needs safetensors: pip install "ascl-plugin[recipes]"'
        ) from error
    return safetensors
