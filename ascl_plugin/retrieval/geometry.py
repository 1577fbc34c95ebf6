"""Geometry of embeddings: distances of pairs that belong together, and of different items.

Alignment and uniformity are those of Wang and Isola (2020); mean and variance of the Euclidean
distances are those of both papers' Figure 4 (AsCL, section 3.4; ACF-R+, section 4.5).

Cross-modal fusion scores a pair; no vector of one side alone enters that score. So the vectors here
are features before attention, of unit length: `image_embeddings` and `text_embeddings` of
`scoring.search`. Only `own_distances` compares vectors after attention.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion
from ascl_plugin.interfaces import HasFusion
from ascl_plugin.scoring.paired_protocol import with_local_weight
from ascl_plugin.scoring.pairs import score_pairs

_PAIRS = 2**12  # pairs of positives whose vectors are held at once


class Distances(NamedTuple):
    """Statistics of the distances d = ||x - y|| of many pairs (x, y).

    Attributes:
        mean, variance: of d; the variance is divided by the number of pairs.
        alignment: mean of d^2, low if positives are close.
        uniformity: log mean exp(-2 d^2), low if items are spread out.
    """

    pairs: int
    mean: float
    variance: float
    alignment: float
    uniformity: float


def positives(images: Tensor, texts: Tensor, caption_to_image: Tensor) -> Distances:
    """Return the distances of every text from its image.

    Args:
        images: (I, D) vectors.
        texts: (T, D) vectors.
        caption_to_image: (T,) int64.

    Raises:
        ValueError: shapes that do not fit, an index beyond the images.
    """
    _check("texts", texts, caption_to_image)
    if images.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"images of shape {tuple(images.shape)} and texts of shape {tuple(texts.shape)}: both "
            "must be (items, D)"
        )
    outside = (caption_to_image < 0) | (caption_to_image >= len(images))
    if outside.any():
        text = int(outside.int().argmax())
        raise ValueError(
            f"caption_to_image: caption {text} points at image {int(caption_to_image[text])}, "
            f"there are images 0 to {len(images) - 1}"
        )
    return _distances_of(images, texts, caption_to_image, torch.arange(len(texts)))


def siblings(texts: Tensor, caption_to_image: Tensor) -> Distances | None:
    """Return the distances of every two texts of one image; None if no image has two.

    Args:
        texts: (T, D) vectors.
        caption_to_image: (T,) int64, in any order.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check("texts", texts, caption_to_image)
    order = torch.argsort(caption_to_image, stable=True)
    owners = caption_to_image[order]
    first, second = [], []
    for step in range(1, int(torch.bincount(owners).max())):
        same = owners[step:] == owners[:-step]
        first.append(order[:-step][same])
        second.append(order[step:][same])
    if not first:
        return None
    return _distances_of(texts, texts, torch.cat(first), torch.cat(second))


def differences(
    vectors: Tensor, groups: Tensor | None = None, tile: int = 1024, progress: bool = False
) -> Distances:
    """Return the distances of every two different items, a tile of pairs at a time.

    Args:
        vectors: (N, D).
        groups: (N,) int64; items of one group, such as captions of an image, are not compared.
            None: every item is its own group.
        tile: items on each side of a tile.
        progress: show a bar if it takes longer than 2 seconds.

    Raises:
        ValueError: shapes that do not fit; all items in one group.
    """
    groups = torch.arange(len(vectors)) if groups is None else groups
    _check("vectors", vectors, groups)
    groups = groups.to(vectors.device)
    starts = range(0, len(vectors), tile)
    corners = [(i, j) for i in starts for j in starts if i <= j]

    def tiles() -> Iterator[Tensor]:
        for i, j in tqdm(corners, desc="distances", unit="tile", delay=2, disable=not progress):
            rows, columns = slice(i, i + tile), slice(j, j + tile)
            different = groups[rows, None] != groups[None, columns]
            if i == j:
                different = different.triu(1)
            yield torch.cdist(vectors[rows].double(), vectors[columns].double())[different]

    found = _gather(tiles())
    if found is None:
        raise ValueError(f"{len(vectors)} vectors, and no two of them are of different groups")
    return found


def own_distances(
    model: HasFusion, images: ImageFeatures, texts: TextFeatures, caption_to_image: Tensor
) -> Distances | None:
    """Return the distances of V_g from W_g when each text and its image attend to each other.

    These unit vectors, whose cosine is S_global, exist for a pair only: two images, or two texts,
    cannot be compared by them.

    Args:
        model: None is returned unless its `fusion` is a `CrossModalFusion`.
        images, texts: features.
        caption_to_image: (T,) int64 on the CPU.

    Raises:
        ValueError: see `score_pairs`.
    """
    if not isinstance(model.fusion, CrossModalFusion):
        return None
    head = with_local_weight(model.fusion, 0.0)  # S is S_global
    cosines = score_pairs(head, images, texts, caption_to_image, torch.arange(len(texts)))
    return _gather(iter([(2 - 2 * cosines.double()).clamp_min(0).sqrt()]))


def _distances_of(x: Tensor, y: Tensor, rows: Tensor, columns: Tensor) -> Distances:
    pairs = zip(rows.split(_PAIRS), columns.split(_PAIRS), strict=True)
    found = _gather((x[i].double() - y[j].double()).norm(dim=1) for i, j in pairs)
    assert found is not None
    return found


def _gather(parts: Iterator[Tensor]) -> Distances | None:
    """Return the statistics of distances (P,) float64 given in parts; None if there are none."""
    count, sums = 0, torch.zeros(3, dtype=torch.float64)
    for d in parts:
        count += d.numel()
        sums += torch.stack([d.sum(), d.square().sum(), torch.exp(-2 * d.square()).sum()]).cpu()
    if not count:
        return None
    mean, square, gauss = (sums / count).tolist()
    return Distances(count, mean, max(0.0, square - mean**2), square, math.log(gauss))


def _check(name: str, vectors: Tensor, groups: Tensor) -> None:
    if vectors.ndim != 2 or groups.shape != vectors.shape[:1]:
        raise ValueError(
            f"{name} have shape {tuple(vectors.shape)} for indices of shape {tuple(groups.shape)}: "
            "expected (N, D) and (N,)"
        )
