"""Neighbours of a text: by scores, by embeddings, or, an oracle, by labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ascl_plugin.ranking import top_candidates
from ascl_plugin.scores import row_chunks

# the name of the oracle's row in tables
ROW = "oracle: label groups"
WARNING = (
    "rerank: caption_groups says which captions belong to the same image. That is the label that "
    "retrieval is to find: text-to-image recall after it is that of an oracle, not of a method"
)


def nearest_texts(scores: Tensor, count: int, embeddings: Tensor | None = None) -> Tensor:
    """Return G(T, K') of eq 26: the `count` texts nearest to each text, the text itself first.

    Without embeddings two texts are near when they like the same images: the cosine of their
    columns of `scores`, minus each image's mean over all texts (an image that every text likes says
    nothing about a text). Exact, in chunks.

    Args:
        scores: (I, T), finite.
        count: 1 <= count <= T.
        embeddings: (T, E), finite, to take cosines of; or None.

    Returns:
        (T, count) int64.
    """
    if count == 1:
        return torch.arange(scores.shape[1], device=scores.device)[:, None]
    if embeddings is None:
        return nearest(unit_vectors(scores.T, centered=True), count)
    return nearest(unit_vectors(embeddings.to(scores.device)), count)


def nearest(vectors: Tensor, count: int) -> Tensor:
    """Return the `count` items with the largest product with each item (N, E), itself first."""
    found = []
    for rows in row_chunks(len(vectors), len(vectors)):
        similarity = vectors[rows] @ vectors.T
        similarity[:, rows].fill_diagonal_(torch.inf)
        found.append(top_candidates(similarity, count))
    return torch.cat(found)


def unit_vectors(source: Tensor, centered: bool = False) -> Tensor:
    """Return rows of length 1, (N, E) in float32, in float64 for float64.

    Args:
        source: (N, E), finite; embeddings, or profiles: an item's scores with every query.
        centered: subtract each column's mean over the rows first.
    """
    wide = torch.float64 if source.dtype == torch.float64 else torch.float32
    low, high = source.aminmax()
    # a cosine ignores scale, the squares on the way to it overflow or vanish
    scale = torch.maximum(-low, high).to(wide).clamp_min(torch.finfo(wide).tiny)
    vectors = source.to(wide) / scale
    if centered:
        vectors -= vectors.mean(dim=0)
    return normalize(vectors, dim=1, out=vectors)


def group_neighbors(groups: Tensor) -> Tensor:
    """Return the texts of the same group as each text, itself among them.

    Args:
        groups: (T,) integers; texts with the same number are a group.

    Returns:
        (T, G) int64, G the size of the largest group; smaller groups repeat the text itself.
    """
    _, group, sizes = groups.unique(return_inverse=True, return_counts=True)
    members = _first_of_each(group, group.argsort(stable=True), len(sizes), int(sizes.max()))
    own = torch.arange(len(groups), device=groups.device)[:, None]
    neighbors = members[group]
    return torch.where(neighbors < 0, own, neighbors)


def _first_of_each(group: Tensor, order: Tensor, groups: int, k: int) -> Tensor:
    """Return (groups, k): the first k of each group, in `order` (sorted by group); then -1."""
    sizes = group.bincount(minlength=groups)
    place = torch.arange(len(order), device=order.device)
    place -= (sizes.cumsum(0) - sizes)[group[order]]
    order, place = order[place < k], place[place < k]
    first = torch.full((groups, k), -1, device=order.device)
    first[group[order], place] = order
    return first
