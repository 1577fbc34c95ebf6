"""Bidirectional re-ranking (ACF-R+, section 3.5): order candidates by how they rank the query."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ascl_plugin.ranking import positions, top_candidates
from ascl_plugin.reranking.neighbors import group_neighbors, nearest_texts
from ascl_plugin.reranking.options import check_number
from ascl_plugin.scores import row_chunks


def bidirectional(
    scores: Tensor,
    *,
    k: int = 20,
    reverse_k: int | None = None,
    text_neighbors: int = 1,
    text_embeddings: Tensor | None = None,
    mix: float = 0.0,
    caption_groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Re-rank both directions of an (I, T) tensor (section 3.5, eqs 19-29).

    See `ascl_plugin.reranking.rerank` for the arguments. A few passes over the matrix in chunks of
    rows; beside the two results, some integers for each of the (I + T) k candidates, and with more
    than one text neighbour the texts' profiles in float32 (I, T).

    A candidate at reverse position p (after `reverse_k`) and initial rank r, both counted from 0,
    is placed by ``(1 - mix) p + mix r``, smaller first. mix=0: the equations as printed; 1: the
    initial order.
    """
    check_number("mix", mix, at_least=0, at_most=1)
    if caption_groups is None:
        neighbors = nearest_texts(scores, min(text_neighbors, scores.shape[1]), text_embeddings)
    else:
        neighbors = group_neighbors(caption_groups)
    texts, images = look_back(scores, k), look_back(scores.T, k, neighbors)
    return hand_out(scores, texts, images, reverse_k, mix)


class LookBack(NamedTuple):
    """The candidates of every query, and its positions in their lists.

    Args:
        candidates: (Q, k) int64, columns of the scores, best first (eqs 19, 24).
        position: (Q, k) int64, from 0, of the query in each candidate's own list (eqs 22, 28).
    """

    candidates: Tensor
    position: Tensor

    def first(self, k: int) -> LookBack:
        """Return the first k candidates alone."""
        return LookBack(self.candidates[:, :k], self.position[:, :k])


def look_back(scores: Tensor, k: int, neighbors: Tensor | None = None) -> LookBack:
    """Return the top k of every query, and the query's position in the list of each.

    Args:
        scores: (Q, G), a row for each query.
        k: above G means G.
        neighbors: (Q, K') queries, of which the best placed counts (eq 27). None: the query.
    """
    candidates = top_candidates(scores, min(k, scores.shape[1]))
    speakers = torch.arange(len(scores), device=scores.device)[:, None].expand_as(candidates)
    if neighbors is not None and neighbors.shape[1] > 1:
        speakers = _best_placed(scores, candidates, neighbors)
    position = positions(scores.T, candidates.flatten(), speakers.flatten())
    return LookBack(candidates, position.view_as(candidates))


def hand_out(
    scores: Tensor, texts: LookBack, images: LookBack, reverse_k: int | None, mix: float
) -> tuple[Tensor, Tensor]:
    """Return both results: the k best scores of each query, for its candidates in the new order.

    Args:
        scores: (I, T).
        texts: candidates of each image.
        images: candidates of each text.
        reverse_k, mix: as in `rerank`.
    """
    i2t, t2i = (scores.clone(memory_format=torch.contiguous_format) for _ in range(2))
    for result, found in ((i2t, texts), (t2i.T, images)):
        best = result.gather(1, found.candidates)  # already from high to low
        order = new_order(found.position, reverse_k, mix)
        query = torch.arange(len(result), device=result.device)[:, None]
        result[query, found.candidates.gather(1, order)] = best
    return i2t, t2i


def new_order(position: Tensor, reverse_k: int | None, mix: float) -> Tensor:
    """Return Ranking(P) of eqs 23 and 29, (Q, k): the initial rank of the candidate in each place.

    Args:
        position: (Q, k) ints, in the initial order; equal ones keep it.
        reverse_k, mix: as in `bidirectional`.
    """
    if reverse_k is not None:
        position = position.clamp(max=reverse_k)
    if mix == 0:
        return position.argsort(dim=1, stable=True)
    rank = torch.arange(position.shape[1], device=position.device)
    mean = (1 - mix) * position.double() + mix * rank.double()
    # rounded, so that means equal on paper are equal here
    return mean.round(decimals=6).argsort(dim=1, stable=True)


def _best_placed(scores: Tensor, candidates: Tensor, neighbors: Tensor) -> Tensor:
    """Return (Q, k), the neighbour of each query that each candidate scores highest."""
    in_order = neighbors.sort(dim=1).values  # argmax takes the first of equals: the lower index
    result = torch.empty_like(candidates)
    for rows in row_chunks(len(candidates), candidates.shape[1] * neighbors.shape[1]):
        near = in_order[rows]
        best = scores[near[:, None, :], candidates[rows][:, :, None]].argmax(dim=2)
        result[rows] = near.gather(1, best)
    return result
