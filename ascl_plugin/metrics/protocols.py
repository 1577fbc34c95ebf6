"""Evaluation protocols: the gallery is the whole set, or one of the five folds of COCO 1K."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.metrics.precision import discounted_gain, precision_at_r
from ascl_plugin.metrics.recall import (
    Owners,
    checked,
    image_ranks,
    metrics_of_ranks,
    other_direction,
    text_ranks,
)
from ascl_plugin.scores import Array

#: Name -> number of folds. Flickr30K 1K, COCO 5K and any other data are "full".
PROTOCOLS = {"full": 1, "coco_1k": 5}
FOLD_IMAGES = 1000  # of each fold of COCO 1K


@dataclass(frozen=True)
class QueryResults:
    """Results of single queries, for metrics, intervals and tests of significance.

    Args:
        i2t_rank: (I,) int64, of the best placed caption of each image, 1 the best.
        t2i_rank: (T,) int64, of each caption's image.
        map_at_r, r_precision, ndcg10: (I,) float64, 0 to 1, of image queries; see
            `precision_at_r`.
        caption_to_image: (T,) int64.
        fold: (I,) int64, from 0; the gallery of a query is its fold.
    """

    i2t_rank: np.ndarray
    t2i_rank: np.ndarray
    map_at_r: np.ndarray
    r_precision: np.ndarray
    ndcg10: np.ndarray
    caption_to_image: np.ndarray
    fold: np.ndarray

    @property
    def t2i_ndcg10(self) -> np.ndarray:
        """nDCG@10 of each caption as a query, (T,) float64: it has one right image."""
        return discounted_gain(torch.from_numpy(self.t2i_rank)).numpy()

    def metrics(self) -> dict[str, float]:
        """Return the metrics of `protocol_metrics`, the means over the folds."""
        found = []
        for fold in range(int(self.fold.max()) + 1):
            image = self.fold == fold
            text = image[self.caption_to_image]
            one = metrics_of_ranks(self.i2t_rank[image], self.t2i_rank[text])
            one["i2t_map_at_r"] = 100 * float(self.map_at_r[image].mean())
            one["i2t_r_precision"] = 100 * float(self.r_precision[image].mean())
            one["t2i_map_at_r"] = one["t2i_r_precision"] = one["t2i_r1"]
            one["i2t_ndcg10"] = 100 * float(self.ndcg10[image].mean())
            one["t2i_ndcg10"] = 100 * float(self.t2i_ndcg10[text].mean())
            one["i2t_mrr"] = 100 * float((1 / self.i2t_rank[image]).mean())
            one["t2i_mrr"] = 100 * float((1 / self.t2i_rank[text]).mean())
            found.append(one)
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def protocol_metrics(
    sim: Array, caption_to_image: Owners, protocol: str = "full", t2i: Array | None = None
) -> dict[str, float]:
    """Return the metrics of a similarity matrix under a protocol.

    Args:
        sim, caption_to_image, t2i: as in `retrieval_metrics`.
        protocol: "full", every query against all: COCO 5K, Flickr30K 1K, any data set. "coco_1k":
            the 5,000 images in five folds of 1,000, in the order of the rows, each with its
            captions; each metric is the mean of the five. Published figures have the images in the
            order of Karpathy's JSON.

    Returns:
        The metrics of `retrieval_metrics`, and in percent ``i2t_map_at_r, t2i_map_at_r,
        i2t_r_precision, t2i_r_precision`` (see `precision_at_r`). A caption has one image, so those
        of T2I are ``t2i_r1``. Also ``i2t_ndcg10, t2i_ndcg10`` (nDCG@10), and ``i2t_mrr, t2i_mrr``:
        the mean of 100 / rank.

    Raises:
        TypeError, ValueError: as `retrieval_metrics`; an unknown protocol; "coco_1k" with another
            number of images than 5,000.

    Examples:
        >>> import numpy as np
        >>> from ascl_plugin.metrics.protocols import protocol_metrics
        >>> metrics = protocol_metrics(np.array([[0.9, 0.1, 0.4], [0.2, 0.8, 0.5]]), [0, 1, 0])
        >>> metrics["i2t_map_at_r"], metrics["t2i_map_at_r"]
        (100.0, 66.66666666666666)
    """
    return query_results(sim, caption_to_image, protocol, t2i).metrics()


def query_results(
    sim: Array, caption_to_image: Owners, protocol: str = "full", t2i: Array | None = None
) -> QueryResults:
    """Return the results of single queries; arguments and errors as `protocol_metrics`."""
    scores, owners = checked(sim, "sim", caption_to_image)
    text_scores, text_owners = other_direction(t2i, scores, owners)
    images, texts = scores.shape
    i2t_rank, fold = np.empty(images, np.int64), np.empty(images, np.int64)
    t2i_rank = np.empty(texts, np.int64)
    map_at_r, r_precision, ndcg = np.empty(images), np.empty(images), np.empty(images)
    for number, (rows, columns) in enumerate(folds(owners, images, protocol)):
        fold[rows] = number
        own = owners[columns] - rows.start
        scored = block(scores, rows, columns)
        i2t_rank[rows] = image_ranks(scored, own).cpu()
        found = (values.cpu() for values in precision_at_r(scored, own))
        map_at_r[rows], r_precision[rows], ndcg[rows] = found
        if t2i is not None:
            columns = columns.to(text_scores.device)
            own = text_owners[columns] - rows.start
            scored = block(text_scores, rows, columns)
        t2i_rank[columns.cpu()] = text_ranks(scored, own).cpu()
    of = owners.cpu().numpy()
    return QueryResults(i2t_rank, t2i_rank, map_at_r, r_precision, ndcg, of, fold)


def folds(owners: Tensor, images: int, protocol: str) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows, and columns (t,) int64, of each block of scores that a protocol evaluates.

    Raises:
        ValueError: an unknown protocol, or one that does not fit the number of images.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known are {', '.join(PROTOCOLS)}")
    if protocol == "coco_1k" and images != 5 * FOLD_IMAGES:
        raise ValueError(
            f'protocol "coco_1k" is five folds of {FOLD_IMAGES} images, got {images} images; '
            'use "full"'
        )
    step = images // PROTOCOLS[protocol]
    for start in range(0, images, step):
        inside = (owners >= start) & (owners < start + step)
        yield slice(start, start + step), inside.nonzero()[:, 0]


def block(scores: Tensor, rows: slice, columns: Tensor) -> Tensor:
    """Return the scores of a fold; a view if it has all columns."""
    return scores[rows] if len(columns) == scores.shape[1] else scores[rows][:, columns]
