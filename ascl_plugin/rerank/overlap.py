"""Texts whose lists of images overlap: neighbours of a text where there are lists alone."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ascl_plugin.rerank.similarity import row_chunks


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
