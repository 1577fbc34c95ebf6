"""Rows reordered by other values: every method moves scores and changes none."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.ranking import rising_bits
from ascl_plugin.scores import CHUNK_SCORES, IN_CACHE, contiguous, row_chunks
from ascl_plugin.threads import side_by_side

_SHARED = 2**16  # values from which on threads share the work
_FEW_TIES = 1024  # equal values a row, on average, that are sorted one by one


def reorder_rows(
    scores: Tensor,
    result: Tensor,
    values: Callable[[Tensor, slice], Tensor],
    at_once: int = IN_CACHE,
) -> Tensor:
    """Fill `result` with `scores`, each row's scores in the order of its new values.

    Equal values keep the initial order, and equal scores the lower index first.

    Args:
        scores: (Q, G), read.
        result: (Q, G), written; can be `scores`. A transposed view serves the other direction.
        values: (rows in float32 or float64 (C, G), which rows) -> (C, G) without NaN, higher first;
            called in threads.
        at_once: number of scores in such a chunk on a CPU; CHUNK_SCORES on a GPU.

    Returns:
        `result`.
    """

    def reorder(rows: slice) -> None:
        chunk = widened(contiguous(scores[rows]))
        order = _order(values(chunk, rows), chunk)
        ranked = sort_rows(chunk.clone()).flip(1)
        result[rows] = torch.empty_like(ranked).scatter_(1, order, ranked).to(scores.dtype)

    queries, gallery = scores.shape
    size = at_once if scores.device.type == "cpu" else CHUNK_SCORES
    side_by_side(reorder, list(row_chunks(queries, gallery, size)))
    return result


def _order(values: Tensor, initial: Tensor) -> Tensor:
    """Return columns by value, then by initial score, highest first, then by index, (C, G) int64.

    Few values are equal as a rule, and only these are sorted by the initial score.
    """
    order, key = _from_high_to_low(values)
    tied = torch.zeros(key.shape, dtype=torch.bool, device=key.device)
    equal = key[:, 1:] == key[:, :-1]
    tied[:, 1:] |= equal
    tied[:, :-1] |= equal
    row, place = tied.nonzero(as_tuple=True)
    if len(row) > _FEW_TIES * len(key):
        first = _from_high_to_low(initial)[0]
        return first.gather(1, _from_high_to_low(values.gather(1, first))[0])
    column = order[row, place]
    by = np.lexsort([x.cpu().numpy() for x in (-initial[row, column], key[row, place], row)])
    order[row, place] = column[torch.from_numpy(by).to(column.device)]
    return order


def _from_high_to_low(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the stable argsort of every row, (C, G) int64, highest first, and what it sorts by.

    On a CPU, numpy's vectorised sort of plain integers is several times faster than an argsort. So
    value and column share one integer: its upper half falls as the value rises, its lower half is
    the column, which keeps ties in order and is the result.
    """
    if values.device.type != "cpu" or values.dtype == torch.float64:
        found = values.sort(dim=1, descending=True, stable=True)
        return found.indices, -found.values
    key = rising_bits(values).bitwise_not_().long().bitwise_left_shift_(32)
    key = sort_rows(key.add_(torch.arange(values.shape[1])))
    return key & 0xFFFFFFFF, key.bitwise_right_shift_(32)


def sort_rows(values: Tensor) -> Tensor:
    """Sort every row of a tensor (N, M) from low to high, in place on a CPU, and return it.

    numpy's sort is vectorised: several times faster than torch's, which also finds the order. It
    is one thread's work, so as many threads share the rows as torch has.
    """
    if values.device.type != "cpu":
        return values.sort(dim=1).values
    array, threads = values.numpy(), torch.get_num_threads()
    if threads == 1 or values.numel() < _SHARED:
        array.sort(axis=1)
        return values
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda part: part.sort(axis=1), np.array_split(array, threads)):
            pass
    return values


def widened(scores: Tensor) -> Tensor:
    """Return float64 as it is, any shorter type as float32."""
    return scores if scores.dtype == torch.float64 else scores.float()
