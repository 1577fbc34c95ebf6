"""Neighbours of a text: by scores, by embeddings, by top-K lists, or, an oracle, by labels."""

from __future__ import annotations

import warnings

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


def overlapping_texts(ids: Tensor, scores: Tensor, images: int, count: int) -> Tensor:
    """Return the texts whose lists overlap most with a text's own.

    A list is a sparse vector over images, each with its score above the last of the list; the
    overlap of two lists is the cosine of their vectors. So neither scale nor offset of the scores
    matters, and an image that is in one list alone needs no score in the other. Time is that of all
    pairs of texts that share an image, counted once for each image they share.

    Args:
        ids: (T, K') images, -1 for an empty slot; as `check_lists` passes them.
        scores: (T, K').
        images: I.
        count: number of texts, at least 1, the text itself not counted.

    Returns:
        (T, count) int64, the nearest first, -1 where fewer texts share an image.
    """
    texts = len(ids)
    weights = _above_the_last(scores, ids >= 0)
    by_image = _sparse(ids, weights, images).t().coalesce()
    result = torch.full((texts, count), -1, device=ids.device)
    pairs = int(ids[weights > 0].bincount().square().sum())
    for rows in row_chunks(texts, 1 + pairs // texts):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            cosines = torch.sparse.mm(_sparse(ids[rows], weights[rows], images), by_image)
        text, other = cosines.coalesce().indices()
        another = text + rows.start != other
        text, other = text[another], other[another]
        order = cosines.coalesce().values()[another].argsort(descending=True, stable=True)
        order = order[text[order].argsort(stable=True)]
        best = _first_of_each(text, order, rows.stop - rows.start, count)
        result[rows] = torch.where(best < 0, -1, other[best]) if len(other) else best
    return result


def _above_the_last(scores: Tensor, used: Tensor) -> Tensor:
    """Return (T, K') float32 rows of length 1 (0 where all scores are equal), 0 in empty slots."""
    half = (scores.double() / 2).masked_fill(~used, torch.inf)  # differences stay finite
    weights = (half - half.amin(dim=1, keepdim=True)).masked_fill(~used, 0)
    scale = weights.amax(dim=1, keepdim=True)  # squares of tiny numbers would vanish
    return normalize(weights / scale.masked_fill(scale == 0, 1), dim=1).float()


def _sparse(ids: Tensor, weights: Tensor, images: int) -> Tensor:
    text, column = weights.nonzero(as_tuple=True)
    return torch.sparse_coo_tensor(
        torch.stack([text, ids[text, column]]),
        weights[text, column],
        (len(ids), images),
        check_invariants=False,  # torch warns if it is left out
    )


def _first_of_each(group: Tensor, order: Tensor, groups: int, k: int) -> Tensor:
    """Return (groups, k): the first k of each group, in `order` (sorted by group); then -1."""
    sizes = group.bincount(minlength=groups)
    place = torch.arange(len(order), device=order.device)
    place -= (sizes.cumsum(0) - sizes)[group[order]]
    order, place = order[place < k], place[place < k]
    first = torch.full((groups, k), -1, device=order.device)
    first[group[order], place] = order
    return first
