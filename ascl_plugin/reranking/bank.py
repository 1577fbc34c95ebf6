"""A bank of queries, as scores or as vectors, read in blocks of whole rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.reranking.correction import BLOCK_SCORES
from ascl_plugin.reranking.options import check_count
from ascl_plugin.reranking.reorder import widened
from ascl_plugin.scores import Array, as_tensor, check_scores, contiguous

# Scores of a block of products: 1 GB of float32, 268 rows of a million, bound by arithmetic
PRODUCTS = 2**28
_COLUMNS = 2**13  # gallery vectors multiplied at once


class Bank:
    """The scores (B, G) of bank queries with a gallery, never in memory at once.

    Args:
        scores: (B, G); or None, and both of
        vectors: (B, D) of the bank queries, and
        gallery_vectors: (G, D); a score is their inner product.
        hold_back: number of rows, evenly spaced, that `blocks` leaves out.

    Attributes:
        gallery: G.
        learned: number of rows that `blocks` yields.
        numpy: True if the scores, or the vectors, are numpy arrays.

    Raises:
        TypeError: not arrays of floats.
        ValueError: both scores and vectors, or neither; shapes that do not fit; NaN or infinity;
            nothing left to learn from.
    """

    def __init__(
        self,
        scores: Array | None,
        vectors: Array | None = None,
        gallery_vectors: Array | None = None,
        hold_back: int = 0,
    ) -> None:
        if (scores is None) != (vectors is not None and gallery_vectors is not None) or (
            scores is not None and (vectors is not None or gallery_vectors is not None)
        ):
            raise ValueError(
                "Reranker: pass bank_scores alone, or bank_vectors and gallery_vectors"
            )
        self.numpy = isinstance(vectors if scores is None else scores, np.ndarray)
        self._gallery: Tensor | None = None
        if scores is not None:
            self._rows = as_tensor(scores, "bank_scores", "(bank, gallery)")
            self.gallery = self._rows.shape[1]
        else:
            self._rows = as_tensor(vectors, "bank_vectors", "(bank, width)")
            self._gallery = as_tensor(gallery_vectors, "gallery_vectors", "(gallery, width)")
            if self._rows.shape[1] != self._gallery.shape[1]:
                raise ValueError(
                    f"bank_vectors are {self._rows.shape[1]} wide and gallery_vectors "
                    f"{self._gallery.shape[1]}: pass vectors of one space"
                )
            self.gallery = len(self._gallery)
            check_scores(self._gallery, "gallery_vectors")
        check_scores(self._rows, "bank_scores" if self._gallery is None else "bank_vectors")
        if hold_back:
            check_count("hold_back", hold_back)
        self.learned = len(self._rows) - hold_back
        if self.learned < 1:
            raise ValueError(
                f"Reranker: hold_back={hold_back} leaves nothing of {len(self._rows)} bank queries"
            )
        places = torch.arange(hold_back) * len(self._rows) // max(1, hold_back)
        self._held = torch.zeros(len(self._rows), dtype=torch.bool)
        self._held[places] = True

    def blocks(self) -> Iterator[Tensor]:
        """Yield the scores that are learned from, (C, G) in float32, float64 for float64."""
        return self._select(~self._held)

    def held(self) -> Iterator[Tensor]:
        """Yield the scores that are held back."""
        return self._select(self._held)

    def _select(self, wanted: Tensor) -> Iterator[Tensor]:
        size = BLOCK_SCORES if self._gallery is None else PRODUCTS
        rows = max(1, size // self.gallery)
        for block, kept in zip(self._rows.split(rows), wanted.split(rows), strict=True):
            if kept.any():
                part = block if kept.all() else block[kept.to(block.device)]
                yield self._scores(widened(contiguous(part)))

    def _scores(self, rows: Tensor) -> Tensor:
        if self._gallery is None:
            return rows
        block = rows.new_empty(len(rows), self.gallery)
        at = 0
        for part in self._gallery.split(_COLUMNS):
            torch.mm(rows, part.to(rows).T, out=block[:, at : at + len(part)])
            at += len(part)
        return block
