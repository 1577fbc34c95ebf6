"""Bidirectional re-ranking (ACF-R+, section 3.5): what a candidate thinks of the query decides."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ascl_plugin.rerank.neighbors import nearest_texts
from ascl_plugin.rerank.ranking import positions, top_candidates
from ascl_plugin.rerank.similarity import row_chunks


def bidirectional(
    scores: Tensor,
    *,
    k: int,
    reverse_k: int | None,
    text_neighbors: int,
    text_embeddings: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Both directions of section 3.5 (eqs 19-29) on an (I, T) tensor.

    See `ascl_plugin.rerank.rerank` for the arguments. Sorting dominates:
    O(I T (log I + log T)) time; one int32 matrix of the input's shape beside the two results, and
    with more than one text neighbour the texts' profiles in float32, another such matrix.
    """
    neighbors = nearest_texts(scores, min(text_neighbors, scores.shape[1]), text_embeddings)
    return _i2t(scores, k, reverse_k), _t2i(scores, k, reverse_k, neighbors)


def _i2t(scores: Tensor, k: int, reverse_k: int | None) -> Tensor:
    image_position = positions(scores.T)  # (T, I): of each image in each text's list, eqs 20-21

    def key(images: Tensor, texts: Tensor) -> Tensor:  # eq 22
        return image_position[texts, images]

    return _reordered(scores, scores.new_empty(scores.shape), k, reverse_k, key)


def _t2i(scores: Tensor, k: int, reverse_k: int | None, neighbors: Tensor) -> Tensor:
    text_position = positions(scores)  # (I, T): of each text in each image's list, eq 25

    def key(texts: Tensor, images: Tensor) -> Tensor:  # eqs 27-28
        near = neighbors[texts]  # (Q, 1, G)
        return text_position[images[:, :, None], near].amin(dim=2)

    result = scores.new_empty(scores.shape)
    _reordered(scores.T, result.T, k, reverse_k, key, per_candidate=neighbors.shape[1])
    return result


def _reordered(
    scores: Tensor,
    result: Tensor,
    k: int,
    reverse_k: int | None,
    key: Callable[[Tensor, Tensor], Tensor],
    per_candidate: int = 1,
) -> Tensor:
    """Fill `result` with `scores`, the k best of every row handed out again in order of the key.

    Args:
        scores: (Q, G), read.
        result: (Q, G), written.
        k: candidates a row; above G means G.
        reverse_k: keys from here on are all alike; None: no limit.
        key: (queries (Q, 1), candidates (Q, k)) -> (Q, k) positions, smaller first (eqs 23, 29).
        per_candidate: numbers the key looks at for one candidate.
    """
    queries, gallery = scores.shape
    k = min(k, gallery)
    for rows in row_chunks(queries, max(gallery, k * per_candidate)):
        chunk = scores[rows].contiguous()
        candidates = top_candidates(chunk, k)
        index = torch.arange(rows.start, rows.stop, device=scores.device)[:, None]
        position = key(index, candidates)
        if reverse_k is not None:
            position = position.clamp(max=reverse_k)
        order = position.argsort(dim=1, stable=True)
        best = chunk.gather(1, candidates)  # already from high to low
        result[rows] = chunk.scatter(1, candidates.gather(1, order), best)
    return result
