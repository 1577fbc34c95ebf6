"""Scores without a picture: the control that every contest of texts needs.

A model that was trained on edited captions can learn to tell edited from written ones, and then
wins contests of captions against edits whatever the image shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures
from ascl_plugin.interfaces import AnyRows, SplitEvaluator
from ascl_plugin.scoring.pairs import score_pairs

SAMPLE = 64  # images to average the scores of an evaluator that encodes none


def mean_image(images: ImageFeatures) -> ImageFeatures:
    """Return one image: the mean of the regions at each place, and of the whole images.

    A place counts in the images in which it is real, and is real if it is so in any.
    """
    regions, mask = images.regions.float(), images.mask
    pooled = None if images.pooled is None else images.pooled.float().mean(0, keepdim=True)
    if mask is not None:
        count = mask.sum(0)
        regions = torch.where(mask[..., None], regions, 0).sum(0) / count.clamp_min(1)[:, None]
        mask = (count > 0)[None]
    else:
        regions = regions.mean(0)
    regions = regions.to(images.regions.dtype)[None]
    return ImageFeatures(regions, mask, None if pooled is None else pooled.to(images.regions.dtype))


def blind_scores(evaluator: SplitEvaluator, rows: AnyRows, texts: Sequence[str]) -> Tensor:
    """Return the scores (T,) of texts with the mean image of a gallery in place of an image.

    An evaluator without `encode_images` gives the mean of its scores with 64 images, the same for
    all texts, drawn once.

    Args:
        evaluator: scores rows and texts.
        rows: the gallery.
        texts: T texts.
    """
    if not hasattr(evaluator, "encode_images"):
        drawn = np.random.default_rng(0).permutation(len(rows))[:SAMPLE]
        return evaluator.score([rows[int(row)] for row in drawn], texts).mean(0)
    mean, words = mean_image(evaluator.encode_images(rows)), evaluator.encode_texts(texts)
    columns = torch.arange(len(words))
    return score_pairs(evaluator.model, mean, words, torch.zeros_like(columns), columns)
