"""The best k of every image and every text, instead of a score matrix too large to keep."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ascl_plugin.ranking import top_candidates
from ascl_plugin.scores import contiguous
from ascl_plugin.scoring.blocks import Wanted
from ascl_plugin.shares import Shares

EMPTY = torch.iinfo(torch.int64).max  # id of an empty slot; sorts after every real id


@dataclass(frozen=True)
class TopK:
    """Both directions' best items and their scores, best first, equal scores by lower index.

    An empty slot, which only `search` can leave, has id -1 and score -inf.

    Args:
        i2t_ids: (I, min(k, T)) int64, texts of each image.
        i2t_scores: (I, min(k, T)) float32.
        t2i_ids: (T, min(k, I)) int64, images of each text.
        t2i_scores: (T, min(k, I)) float32.
    """

    i2t_ids: Tensor
    i2t_scores: Tensor
    t2i_ids: Tensor
    t2i_scores: Tensor


class Best:
    """Running lists of the best k items of each query."""

    def __init__(self, queries: int, k: int) -> None:
        self.ids = torch.full((queries, k), EMPTY)
        self.scores = torch.full((queries, k), -torch.inf)

    def add(self, queries: slice | Tensor, scores: Tensor, ids: Tensor) -> None:
        """Add scores (n, m) of n queries with m items; their `ids` (m,) ascend."""
        best = top_candidates(scores, min(self.ids.shape[1], len(ids)))
        self.merge(queries, ids[best], scores.gather(1, best))

    def merge(self, queries: slice | Tensor, ids: Tensor, scores: Tensor) -> None:
        """Add lists (n, any length) of n queries; none of their items was added before."""
        ids = torch.cat([self.ids[queries], ids], 1)
        scores = torch.cat([self.scores[queries], scores], 1)
        by_id = ids.argsort(dim=1)
        ids, scores = ids.gather(1, by_id), scores.gather(1, by_id)
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, : self.ids.shape[1]]
        self.ids[queries] = ids.gather(1, order)
        self.scores[queries] = scores.gather(1, order)

    def lists(self) -> tuple[Tensor, Tensor]:
        """Return ids and scores, (Q, k) each; -1 marks an empty slot."""
        return self.ids.masked_fill(self.ids == EMPTY, -1), self.scores


class TopKLists:
    """Running lists of both directions, length k, filled with scores of this rank's images."""

    def __init__(self, rows: Shares, texts: int, k: int) -> None:
        self.rows = rows
        self.wanted: Wanted | None = None  # every block is
        self.done = 0
        self.i2t = Best(rows.total, min(k, texts))
        self.t2i = Best(texts, min(k, rows.total))

    def put(self, block: slice, columns: Tensor, scores: Tensor) -> None:
        """Add the scores of a block; its rows count from this rank's first.

        Raises:
            ValueError: NaN among the scores.
        """
        first = self.rows.own.start
        rows = slice(block.start + first, block.stop + first)
        if scores.isnan().any():
            row, column = scores.isnan().nonzero()[0].tolist()
            raise ValueError(
                f"image {rows.start + row} and text {int(columns[column])} score NaN, which cannot "
                "be ranked; check their features"
            )
        order = columns.argsort()
        self.i2t.add(rows, scores[:, order], columns[order])
        self.t2i.add(columns, contiguous(scores.T), torch.arange(rows.start, rows.stop))

    def result(self) -> TopK:
        """Return the lists of all ranks' images. Collective."""
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
    """Return the best k of each query among listed pairs.

    Args:
        queries, items, scores: (P,) of each pair; no pair twice.
        count: Q, the number of queries.
        k: length of the lists.

    Returns:
        Ids (Q, k) and scores; an empty slot has id -1 and score -inf.
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
