"""Ranked lists of a score matrix, higher first and ties to the lower index, never sorted whole."""

from __future__ import annotations

import torch
from torch import Tensor

from ascl_plugin.scores import contiguous, row_chunks


def top_candidates(scores: Tensor, k: int) -> Tensor:
    """Return the first `k` columns of every row's ranked list, exact on ties.

    ``torch.topk`` guarantees neither the order of equal scores nor which of them it takes last, so
    rows where the k-th and the next score are equal are selected by index.

    Args:
        scores: (Q, G), no NaN.
        k: 1 <= k <= G.

    Returns:
        (Q, k) int64, best first.
    """
    gallery = scores.shape[1]
    result = torch.empty(len(scores), k, dtype=torch.int64, device=scores.device)
    for rows in row_chunks(*scores.shape):
        chunk = contiguous(scores[rows])
        top = chunk.topk(min(k + 1, gallery), dim=1)
        columns = top.indices[:, :k]
        if k < gallery:
            crowded = top.values[:, k - 1] == top.values[:, k]
            columns[crowded] = _lowest_index_first(chunk[crowded], top.values[crowded, k - 1], k)
        columns = columns.sort(dim=1).values
        order = chunk.gather(1, columns).sort(dim=1, descending=True, stable=True).indices
        result[rows] = columns.gather(1, order)
    return result


def positions(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the positions of entries in their rows' ranked lists, counted from 0.

    A position is the count of entries of the row that score higher, plus those that score the same
    and come first. Only entries not below the lowest one asked for are sorted, a few percent of a
    matrix if those asked for are candidates.

    Args:
        scores: (Q, G), no NaN.
        rows, columns: (P,) int64, the entries, in any order, also repeated.

    Returns:
        (P,) int64 in 0 .. G-1.
    """
    by_row = rows.argsort()
    rows, columns = rows[by_row], columns[by_row]
    found = torch.empty_like(rows)
    for chunk in row_chunks(*scores.shape):
        bounds = torch.tensor([chunk.start, chunk.stop], device=rows.device)
        first, last = torch.searchsorted(rows, bounds).tolist()
        part = slice(first, last)
        if first < last:
            found[part] = _positions(scores[chunk], rows[part] - chunk.start, columns[part])
    return torch.empty_like(found).scatter_(0, by_row, found)


def _positions(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return `positions` in a chunk: row, score and column share one integer, and are sorted."""
    queries, gallery = scores.shape
    scores = contiguous(scores)
    asked = scores[rows, columns]
    lowest = scores.new_full((queries,), torch.inf).scatter_reduce(0, rows, asked, "amin")
    row, column = (scores >= lowest[:, None]).nonzero(as_tuple=True)
    falling, asked = _falling(scores[row, column], asked)
    span = 2**32 * gallery  # of a row's integers
    lists = row * span + falling * gallery + column
    if lists.device.type == "cpu":
        lists.numpy().sort()  # vectorised; torch's also finds the order, several times slower
    else:
        lists = lists.sort().values
    start = torch.searchsorted(lists, rows * span)
    return torch.searchsorted(lists, rows * span + asked * gallery + columns) - start


def _falling(scores: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Return 32-bit integers that fall as the score rises; all of `asked` are among `scores`."""
    if scores.dtype == torch.float64:  # does not fit: use its place among these scores
        levels = scores.unique()
        found, wanted = (torch.searchsorted(levels, x) for x in (scores, asked))
        return len(levels) - found, len(levels) - wanted

    return 2**31 - 1 - rising_bits(scores).long(), 2**31 - 1 - rising_bits(asked).long()


def rising_bits(scores: Tensor) -> Tensor:
    """Return int32 that compare as scores of at most 32 bits do; 0.0 and -0.0 are equal."""
    pattern = (scores.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 the other
    return torch.where(pattern < 0, pattern ^ 0x7FFFFFFF, pattern)


def _lowest_index_first(scores: Tensor, level: Tensor, k: int) -> Tensor:
    """Return the columns of the k best of every row; of equals at `level`, the k-th, the first."""
    above = scores > level[:, None]
    at_level = scores == level[:, None]
    room = k - above.sum(dim=1, keepdim=True)
    at_level &= at_level.cumsum(dim=1, dtype=torch.int32) <= room
    return (above | at_level).nonzero()[:, 1].view(len(scores), k)
