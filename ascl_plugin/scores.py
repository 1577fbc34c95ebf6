"""Score matrices at the border: numpy or torch in, one checked tensor inside, the same type out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor

# Scores processed at once: 16 MB of float32, and a few times that in temporaries.
CHUNK_SCORES = 2**22

# Scores processed at once where several steps in a row are to find them in the cache: 1 MB.
IN_CACHE = 2**18

_COLUMNS = 64  # columns of a matrix that are copied together

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_tensor(
    values: object, name: str, axes: str = "(images, texts)", integers: bool = False
) -> Tensor:
    """Return a matrix as a detached tensor that shares memory with it wherever torch allows.

    Args:
        values: 2-D numpy array (float16, 32, 64) or tensor (also bfloat16), or what numpy makes one
            of: a list of rows, a DataFrame; left untouched.
        name: the name of the argument or file in messages.
        axes: the meaning of the two axes, for messages.
        integers: the matrix must hold integers of any width instead.

    Raises:
        TypeError: nothing that numpy makes an array of, a sparse matrix, or another dtype.
        ValueError: not two axes, or one of them is empty.
    """
    values = as_array(values, name)
    if integers and not _is_integer(values):
        raise TypeError(f"{name} must hold integers, got {values.dtype}")
    if not integers and not _is_float(values):
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


def as_array(values: object, name: str) -> Array:
    """Return arrays and tensors as they are, anything else as numpy reads it.

    Raises:
        TypeError: a sparse matrix or tensor, or nothing that numpy makes an array of.
    """
    sparse = isinstance(values, Tensor) and values.layout != torch.strided
    if sparse or hasattr(values, "toarray"):
        cure = "to_dense()" if sparse else "toarray()"
        raise TypeError(f"{name} is sparse ({type(values).__name__}): pass {name}.{cure}")
    if isinstance(values, np.ndarray | Tensor):
        return values
    kind = type(values).__name__
    if hasattr(values, "__array__") or isinstance(values, list | tuple):
        try:
            return np.asarray(values)
        except (ValueError, TypeError) as error:  # rows of several lengths
            raise TypeError(f"{name}: numpy makes no array of this {kind} ({error})") from None
    raise TypeError(
        f"{name} must be a numpy array, a torch tensor or what numpy makes one of, got {kind}"
    )


def _is_integer(values: Array) -> bool:
    if isinstance(values, np.ndarray):
        return values.dtype.kind in "iu"
    dtype = values.dtype
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _is_float(values: Array) -> bool:
    if isinstance(values, np.ndarray):
        return values.dtype.kind == "f" and values.dtype.itemsize <= 8
    return values.dtype in _FLOATS


def like(result: Tensor, values: object) -> Array:
    """Return a tensor as the type of `values`: the tensor itself, or numpy, of an array's dtype."""
    if isinstance(values, Tensor):
        return result
    found = cast(np.ndarray, result.numpy())
    return found.astype(values.dtype, copy=False) if isinstance(values, np.ndarray) else found


def check_scores(scores: Tensor, name: str, allow_infinite: bool = False) -> None:
    """Refuse NaN, and infinity unless it is allowed.

    Raises:
        ValueError: names the first such row and column.
    """
    for rows in row_chunks(*scores.shape):
        chunk = scores[rows]
        low, high = chunk.aminmax()  # NaN if there is any
        if low.isnan() or not (allow_infinite or (low.isfinite() and high.isfinite())):
            bad = chunk.isnan() if allow_infinite else ~chunk.isfinite()
            wanted = "a number" if allow_infinite else "finite"
            refuse(bad, rows, scores, name, f"every score must be {wanted}: check the features")


def refuse(bad: Tensor, rows: slice, values: Tensor, name: str, problem: str) -> None:
    """Refuse a chunk of a matrix if any of its entries is bad.

    Raises:
        ValueError: names the first bad entry, its row and its column, and the problem.
    """
    if bad.any():
        row, column = bad.nonzero()[0].tolist()
        row += rows.start
        raise ValueError(
            f"{name} holds {values[row, column].item()} at row {row}, column {column} "
            f"(counted from 0); {problem}"
        )


def row_chunks(rows: int, width: int, size: int = CHUNK_SCORES) -> Iterator[slice]:
    """Yield slices over `rows` rows of `width` scores, about `size` scores each."""
    step = max(1, size // width)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def contiguous(scores: Tensor) -> Tensor:
    """Return a matrix (N, M) with contiguous rows: itself, or a copy.

    Rows of a transposed matrix are as many columns; torch transposes whole contiguous matrices of a
    cache's size five times faster than it gathers columns (5,000 x 25,000 float32 on two cores).
    """
    if scores.is_contiguous() or scores.device.type != "cpu" or scores.stride(0) != 1:
        return scores.contiguous()
    result = torch.empty_like(scores, memory_format=torch.contiguous_format)
    for rows, found in zip(scores.split(_COLUMNS), result.split(_COLUMNS), strict=True):
        found.copy_(rows.T.contiguous().T)
    return result
