"""Ranked lists of a score matrix: higher first, ties to the lower index, in chunks of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from ascl_plugin.rerank.similarity import row_chunks


def top_candidates(scores: Tensor, k: int) -> Tensor:
    """First `k` columns of every row's ranked list, exact on ties, without sorting the row.

    ``torch.topk`` promises no order among equal scores; it serves for the k-th value alone.

    Args:
        scores: (Q, G), no NaN.
        k: 1 <= k <= G.

    Returns:
        (Q, k) int64, best first.
    """
    threshold = scores.topk(k, dim=1).values[:, -1:]
    above = scores > threshold
    level = scores == threshold
    room = k - above.sum(dim=1)
    crowded = level.sum(dim=1) > room  # the running count costs more than all the rest: few rows
    level[crowded] &= level[crowded].cumsum(dim=1, dtype=torch.int32) <= room[crowded, None]
    columns = (above | level).nonzero()[:, 1].view(len(scores), k)
    order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True).indices
    return columns.gather(1, order)


def positions(scores: Tensor) -> Tensor:
    """Position of every column in every row's ranked list.

    Equal to the count of columns that score higher, plus those that score the same and come first.

    Args:
        scores: (Q, G), no NaN.

    Returns:
        (Q, G) int32 in 0 .. G-1: the one thing here as large as the matrix.
    """
    result = torch.empty(scores.shape, dtype=torch.int32, device=scores.device)
    place = torch.arange(scores.shape[1], dtype=torch.int32, device=scores.device)
    for rows in row_chunks(*scores.shape):
        order = _sorted_columns(scores[rows].contiguous())
        result[rows].scatter_(1, order, place.expand(order.shape))
    return result


def _sorted_columns(scores: Tensor) -> Tensor:
    """Stable argsort of every row from high to low, (Q, G) int64.

    On a CPU, numpy's vectorised sort of plain integers is several times faster than an argsort. So
    score and column go into one integer: its upper half falls as the score rises, its lower half is
    the column, which keeps ties in order and is the answer itself.
    """
    if scores.device.type != "cpu" or scores.dtype == torch.float64:
        return scores.sort(dim=1, descending=True, stable=True).indices
    bits = (scores.float() + 0.0).view(torch.int32)  # + 0.0: -0.0 and 0.0 are one score
    falling = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).bitwise_not_()
    key = falling.long().bitwise_left_shift_(32)
    key += torch.arange(scores.shape[1])
    key.numpy().sort(axis=1)
    return key.bitwise_and_(0xFFFFFFFF)
