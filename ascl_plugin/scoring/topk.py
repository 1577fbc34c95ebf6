"""The best k of every image and every text: what is left of a score matrix too large to keep."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ascl_plugin.ranking import top_candidates
from ascl_plugin.shares import Shares

NOBODY = torch.iinfo(torch.int64).max  # holds a place in a list that is not full; after every id


@dataclass(frozen=True)
class TopK:
    """Both directions' best items and their scores, best first, equal scores by lower index.

    Args:
        i2t_ids: (I, min(k, T)) int64, texts of each image.
        i2t_scores: (I, min(k, T)) float32.
        t2i_ids: (T, min(k, I)) int64, images of each text.
        t2i_scores: (T, min(k, I)) float32.

    Where fewer were scored than there is room for, as `search` can leave it, the rest is -1 with
    a score of -inf.
    """

    i2t_ids: Tensor
    i2t_scores: Tensor
    t2i_ids: Tensor
    t2i_scores: Tensor


class Best:
    """Running lists of the best k of Q queries.

    Args:
        queries: Q.
        k: length of the lists.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.ids = torch.full((queries, k), NOBODY)
        self.scores = torch.full((queries, k), -torch.inf)

    def add(self, queries: slice | Tensor, scores: Tensor, ids: Tensor) -> None:
        """Scores (n, m) of n of the queries with m items, whose numbers `ids` (m,) rise."""
        best = top_candidates(scores, min(self.ids.shape[1], len(ids)))
        self.merge(queries, ids[best], scores.gather(1, best))

    def merge(self, queries: slice | Tensor, ids: Tensor, scores: Tensor) -> None:
        """Other lists (n, any length) of n of the queries, none of their items seen before."""
        ids = torch.cat([self.ids[queries], ids], 1)
        scores = torch.cat([self.scores[queries], scores], 1)
        by_id = ids.argsort(dim=1)
        ids, scores = ids.gather(1, by_id), scores.gather(1, by_id)
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, : self.ids.shape[1]]
        self.ids[queries] = ids.gather(1, order)
        self.scores[queries] = scores.gather(1, order)

    def lists(self) -> tuple[Tensor, Tensor]:
        """(ids, scores), each (Q, k); -1 where there is nobody."""
        return self.ids.masked_fill(self.ids == NOBODY, -1), self.scores


class TopKLists:
    """Running lists of both directions, of the rows of one process.

    Args:
        rows: which images are whose.
        texts: T.
        k: length of the lists.
    """

    wanted = None  # every block is
    done = 0

    def __init__(self, rows: Shares, texts: int, k: int) -> None:
        self.rows = rows
        self.i2t = Best(rows.total, min(k, texts))
        self.t2i = Best(texts, min(k, rows.total))

    def put(self, rows: slice, columns: Tensor, scores: Tensor) -> None:
        """A block of scores; rows are counted from this process's first.

        Raises:
            ValueError: NaN among them.
        """
        first = self.rows.own.start
        rows = slice(rows.start + first, rows.stop + first)
        if scores.isnan().any():
            row, column = scores.isnan().nonzero()[0].tolist()
            raise ValueError(
                f"image {rows.start + row} and text {int(columns[column])} score NaN, which has no "
                "place in a list: look at what made their features"
            )
        order = columns.argsort()
        self.i2t.add(rows, scores[:, order], columns[order])
        self.t2i.add(columns, scores.T.contiguous(), torch.arange(rows.start, rows.stop))

    def result(self) -> TopK:
        """The lists of all processes."""
        self.rows.exchange(self.i2t.ids)
        self.rows.exchange(self.i2t.scores)
        found = Best(*self.t2i.ids.shape)
        for source in range(len(self.rows.counts)):
            ids, scores = self.t2i.ids.clone(), self.t2i.scores.clone()
            self.rows.send(ids, source)
            self.rows.send(scores, source)
            found.merge(slice(None), ids, scores)
        return TopK(*self.i2t.lists(), *found.lists())


def best_of_pairs(
    queries: Tensor, items: Tensor, scores: Tensor, count: int, k: int
) -> tuple[Tensor, Tensor]:
    """Lists from scored pairs alone.

    Args:
        queries, items, scores: (P,) of each pair; no pair twice.
        count: Q, the number of queries.
        k: length of the lists.

    Returns:
        (Q, k) ids, -1 where a query has fewer than k pairs, and their scores, -inf there.
    """
    order = items.argsort(stable=True)
    order = order[scores[order].argsort(descending=True, stable=True)]
    order = order[queries[order].argsort(stable=True)]
    counts = queries.bincount(minlength=count)
    begin = counts.cumsum(0) - counts
    place = torch.arange(len(order)) - begin[queries[order]]
    order, place = order[place < k], place[place < k]
    ids = torch.full((count, k), -1)
    best = torch.full((count, k), -torch.inf)
    ids[queries[order], place] = items[order]
    best[queries[order], place] = scores[order]
    return ids, best
