"""A similarity matrix at the border: numpy or torch in, one checked tensor inside, the same out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor

# Scores looked at in one go: 16 MB of float32, some times that in flight, whatever the matrix.
CHUNK_SCORES = 2**22

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_tensor(values: Array, name: str, axes: str = "(images, texts)") -> Tensor:
    """The matrix as a detached tensor, on the memory of `values` wherever torch can read that.

    Args:
        values: 2-D numpy array (float16, 32, 64) or tensor (also bfloat16); left untouched.
        name: what messages call it, an argument or a file.
        axes: what its two axes are, for messages.

    Raises:
        TypeError: neither numpy nor torch, or no floating dtype.
        ValueError: not two axes, or one of them is empty.
    """
    if isinstance(values, np.ndarray):
        floating = values.dtype.kind == "f" and values.dtype.itemsize <= 8
    elif isinstance(values, Tensor):
        floating = values.dtype in _FLOATS
    else:
        raise TypeError(
            f"{name} must be a numpy array or a torch tensor, got {type(values).__name__}"
        )
    if not floating:
        raise TypeError(
            f"{name} must hold floats of 16, 32 or 64 bits, got {values.dtype}; "
            f"convert it first, for example to float32"
        )
    if values.ndim != 2:
        raise ValueError(f"{name} must be {axes}, got shape {tuple(values.shape)}")
    if 0 in values.shape:
        raise ValueError(f"{name} is empty: {axes} is {tuple(values.shape)}")
    if isinstance(values, Tensor):
        return values.detach()
    native = np.asarray(values, dtype=values.dtype.newbyteorder("="))
    if min(native.strides) < 0:
        native = native.copy()  # torch cannot read it
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(native)


def like(result: Tensor, values: Array) -> Array:
    """`result` as what `values` is: an array of its dtype, or the tensor as it stands."""
    if isinstance(values, np.ndarray):
        return result.numpy().astype(values.dtype, copy=False)
    return result


def check_scores(scores: Tensor, name: str, allow_infinite: bool = False) -> None:
    """Refuse NaN, and infinity unless it is allowed.

    Raises:
        ValueError: with the first such row and column.
    """
    for rows in row_chunks(*scores.shape):
        chunk = scores[rows]
        low, high = chunk.aminmax()  # NaN if there is any
        if low.isnan() or not (allow_infinite or (low.isfinite() and high.isfinite())):
            bad = chunk.isnan() if allow_infinite else ~chunk.isfinite()
            row, column = bad.nonzero()[0].tolist()
            row += rows.start
            raise ValueError(
                f"{name} holds {scores[row, column].item()} at row {row}, column {column} "
                f"(counted from 0); every score must be "
                f"{'a number' if allow_infinite else 'finite'}: look at what made that pair's "
                "features"
            )


def row_chunks(rows: int, width: int) -> Iterator[slice]:
    """Slices over `rows` rows of `width` scores, some CHUNK_SCORES scores each."""
    step = max(1, CHUNK_SCORES // width)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
