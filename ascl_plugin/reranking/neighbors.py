"""The texts nearest to a text, found from the scores or from embeddings, never from labels."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ascl_plugin.ranking import top_candidates
from ascl_plugin.scores import row_chunks


def nearest_texts(scores: Tensor, count: int, embeddings: Tensor | None = None) -> Tensor:
    """G(T, K') of eq 26: the `count` texts nearest to each text, the text itself first.

    Two texts are near when they like the same images: the cosine of their columns of `scores`,
    each image's mean over all texts taken off first (an image that every text likes tells nothing
    about a text). With embeddings it is the cosine of those. Exact, in chunks.

    Args:
        scores: (I, T), finite.
        count: 1 <= count <= T.
        embeddings: (T, E), finite, or None.

    Returns:
        (T, count) int64.
    """
    texts = scores.shape[1]
    if count == 1:
        return torch.arange(texts, device=scores.device)[:, None]
    if embeddings is None:
        vectors = unit_vectors(scores.T, centred=True)
    else:
        vectors = unit_vectors(embeddings.to(scores.device))
    found = []
    for rows in row_chunks(texts, texts):
        similarity = vectors[rows] @ vectors.T
        similarity[:, rows].fill_diagonal_(torch.inf)
        found.append(top_candidates(similarity, count))
    return torch.cat(found)


def unit_vectors(source: Tensor, centred: bool = False) -> Tensor:
    """Rows whose products are cosines, (N, E) in float32, in float64 for float64.

    Args:
        source: (N, E), finite; profiles, what everything of the other modality scores with each
            item, or embeddings.
        centred: take each column's mean over the rows off first.
    """
    wide = torch.float64 if source.dtype == torch.float64 else torch.float32
    low, high = source.aminmax()
    # a cosine ignores scale, the squares on the way to it overflow or vanish
    scale = torch.maximum(-low, high).to(wide).clamp_min(torch.finfo(wide).tiny)
    vectors = source.to(wide) / scale
    if centred:
        vectors -= vectors.mean(dim=0)
    return normalize(vectors, dim=1, out=vectors)


# what a table calls the row of recall after it
ROW = "oracle: label groups"
WARNING = (
    "rerank: caption_groups tells which captions belong to the same image. That is the label that "
    "retrieval is to find: text-to-image recall after it is that of an oracle, not of a method"
)


def group_neighbors(groups: Tensor) -> Tensor:
    """The texts of the same group as each text, itself among them.

    Args:
        groups: (T,) integers; texts with the same number are a group.

    Returns:
        (T, G) int64, G the size of the largest group; smaller groups repeat the text itself.
    """
    _, group, sizes = groups.unique(return_inverse=True, return_counts=True)
    order = group.argsort(stable=True)
    place = (
        torch.arange(len(groups), device=groups.device) - (sizes.cumsum(0) - sizes)[group[order]]
    )
    members = group.new_full((len(sizes), int(sizes.max())), -1)
    members[group[order], place] = order
    own = torch.arange(len(groups), device=groups.device)[:, None]
    neighbors = members[group]
    return torch.where(neighbors < 0, own, neighbors)


def overlapping_texts(ids: Tensor, scores: Tensor, images: int, count: int) -> Tensor:
    """The texts whose lists are most like a text's own.

    A list is a sparse vector over images, each with its score above the last of the list, and two
    lists are alike when the cosine of these is high: what scores are added to or multiplied by
    does not matter, and no score is made up for an image that is in one list alone. Time is that of
    all pairs of texts that share an image, counted once for each image they share.

    Args:
        ids: (T, K') images, -1 for nobody; as `check_lists` passes them.
        scores: (T, K').
        images: I.
        count: how many texts, the text itself not among them; at least 1.

    Returns:
        (T, count) int64, the nearest first, -1 where fewer texts share an image.
    """
    texts = len(ids)
    weights = _above_the_last(scores, ids >= 0)
    by_image = _sparse(ids, weights, images).t().coalesce()
    result = torch.full((texts, count), -1, device=ids.device)
    pairs = int(ids[weights > 0].bincount().square().sum())
    for rows in row_chunks(texts, 1 + pairs // texts):
        size = rows.stop - rows.start
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            cosines = torch.sparse.mm(_sparse(ids[rows], weights[rows], images), by_image)
        text, other = cosines.coalesce().indices()
        another = text + rows.start != other
        values = cosines.coalesce().values()[another]
        result[rows] = _best(text[another], other[another], values, size, count)
    return result


def _above_the_last(scores: Tensor, somebody: Tensor) -> Tensor:
    """(T, K') float32 rows of length 1 (or 0, where all scores are equal), 0 for nobody."""
    half = (scores.double() / 2).masked_fill(~somebody, torch.inf)  # differences stay finite
    weights = (half - half.amin(dim=1, keepdim=True)).masked_fill(~somebody, 0)
    scale = weights.amax(dim=1, keepdim=True)  # squares of tiny numbers would vanish
    return normalize(weights / scale.masked_fill(scale == 0, 1), dim=1).float()


def _sparse(ids: Tensor, weights: Tensor, images: int) -> Tensor:
    text, column = weights.nonzero(as_tuple=True)
    return torch.sparse_coo_tensor(
        torch.stack([text, ids[text, column]]),
        weights[text, column],
        (len(ids), images),
        check_invariants=False,  # said, so that torch does not warn
    )


def _best(queries: Tensor, items: Tensor, values: Tensor, count: int, k: int) -> Tensor:
    """(count, k): each query's items of highest value, -1 behind them."""
    order = values.argsort(descending=True, stable=True)
    order = order[queries[order].argsort(stable=True)]
    sizes = queries.bincount(minlength=count)
    first = sizes.cumsum(0) - sizes
    place = torch.arange(len(order), device=order.device) - first[queries[order]]
    order, place = order[place < k], place[place < k]
    best = torch.full((count, k), -1, device=order.device)
    best[queries[order], place] = items[order]
    return best
