"""mAP@R, R-precision and nDCG@10: an image's own captions at the top of its list."""

from __future__ import annotations

import torch
from torch import Tensor

from ascl_plugin.scores import row_chunks


def precision_at_r(scores: Tensor, owners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return average precision at R, R-precision and nDCG@10 of every image with R captions.

        map_at_r = 1/R sum_{r <= R} [the r-th text is right] (right texts among the first r) / r
        r_precision = (right texts among the first R) / R
        ndcg = sum_{right texts, r <= 10} 1 / log2(r + 1)  /  sum_{r <= min(R, 10)} 1 / log2(r + 1)

    Musgrave et al., "A Metric Learning Reality Check", 2020; ECCV Caption reports both. Unlike
    recall they reward more than the first right answer. Ties count against the model: of equal
    scores the wrong text comes first. With R = 1, as for captions as queries, both are recall@1.

    Args:
        scores: (I, T), no NaN.
        owners: (T,) int64, the image of each text, in any order; every image has one.

    Returns:
        (I,) float64 each, 0 to 1.
    """
    counts = owners.bincount(minlength=len(scores))
    own = _own_scores(scores, owners, counts)
    place = torch.arange(own.shape[1], device=scores.device)
    better = torch.empty_like(own, dtype=torch.int64)
    for rows in row_chunks(*scores.shape):
        for j in place.tolist():
            bar = own[rows, j, None]
            wrong = (scores[rows] >= bar).sum(dim=1) - (own[rows] >= bar).sum(dim=1)
            better[rows, j] = wrong + j
    hit = (better < counts[:, None]) & (place < counts[:, None])
    average = (hit * (place + 1) / (better + 1).double()).sum(dim=1) / counts
    gain = discounted_gain(better + 1).masked_fill(place >= counts[:, None], 0).sum(dim=1)
    best = discounted_gain(place + 1).cumsum(0)[counts - 1]
    return average, hit.sum(dim=1) / counts.double(), gain / best


def discounted_gain(ranks: Tensor, k: int = 10) -> Tensor:
    """Return 1 / log2(r + 1) of each rank r <= k, and 0 beyond: float64."""
    return (ranks <= k) / (ranks + 1).double().log2()


def _own_scores(scores: Tensor, owners: Tensor, counts: Tensor) -> Tensor:
    """Return (I, most captions of an image): scores of own texts, high to low, then NaN."""
    right = scores.gather(0, owners[None])[0]
    order = right.argsort(descending=True)
    order = order[owners[order].argsort(stable=True)]
    rows = owners[order]
    begin = counts.cumsum(0) - counts
    table = scores.new_full((len(scores), int(counts.max())), torch.nan)
    table[rows, torch.arange(len(rows), device=rows.device) - begin[rows]] = right[order]
    return table
