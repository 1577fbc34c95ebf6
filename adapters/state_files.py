"""State dicts: read from files without executing anything, loaded into a model by name."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ascl_plugin.adapters.package_path import package_path

_CONVERT = (
    "If it comes from a source you trust (unpickling runs what the file says), convert it once: "
    'python -c "import pickle, sys, torch; '
    "s = pickle.load(open(sys.argv[1], 'rb'), encoding='latin1'); "
    "torch.save({{k: torch.as_tensor(v) for k, v in s['model'].items()}}, 'weights.pth')\" {path}"
)


def read_state(path: str) -> dict[str, Tensor]:
    """Return tensors by name, on the CPU.

    Args:
        path: ``.safetensors``, or a file of `torch.save` with tensors only: the state dict, itself
            or under "model" or "state_dict". ``package:NAME/path`` is in an installed package.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or more than tensors, as detectron2's ``.pkl`` files hold; the message
            says how to convert one.
    """
    path = package_path(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file of weights at {path}")
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle is refused in any of a dozen ways
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{path} is damaged or holds more than tensors ({reason}). "
            + _CONVERT.format(path=shlex.quote(str(path)))
        ) from error
    for name in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} is no state dict: expected tensors by name")
    return dict(state)


def load_state(
    model: nn.Module, state: dict[str, Tensor], source: str, optional: tuple[str, ...] = ()
) -> None:
    """Load tensors by name; names must agree on both sides.

    Args:
        model: module to load into.
        state: tensors by name.
        source: name of the file, for errors.
        optional: endings of names that either side may lack.

    Raises:
        ValueError: names that the file lacks or the model does not know, or shapes that differ; the
            message counts them and names the first.
    """
    optional = (*optional, "num_batches_tracked")
    try:
        faults = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # of shapes; its second line is the first of them
        lines = [line.strip() for line in str(error).splitlines()]
        raise ValueError(f"{source} does not fit the model: {lines[min(1, len(lines) - 1)]}") from (
            error
        )
    wrong = []
    for what, names in (("lacks", faults.missing_keys), ("also has", faults.unexpected_keys)):
        names = [name for name in names if not name.endswith(optional)]
        if names:
            more = ", ..." if len(names) > 3 else ""
            wrong.append(f"{what} {len(names)} tensors ({', '.join(names[:3])}{more})")
    if wrong:
        raise ValueError(f"{source} does not fit the model: it {' and '.join(wrong)}")
