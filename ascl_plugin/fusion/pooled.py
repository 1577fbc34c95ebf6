"""Scoring without cross-modal fusion: the ablation "w/o MF", and the plain dual encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ascl_plugin.features import (
    ImageFeatures,
    TextFeatures,
    check_features,
    mean_of_places,
    whole_texts,
    wide,
)


class PooledSimilarity(nn.Module):
    """Cosine of one vector an image and one a text, without attention across modalities.

    Args:
        image: "regions" (mean of the regions, against the mean of the words) or "pooled" (the
            whole-image feature, against the whole-text feature if the texts have one).

    Shapes:
        images.regions (I, K, D) or images.pooled (I, D), texts.words (T, L, D) or texts.pooled
        (T, D) -> (I, T).
    """

    def __init__(self, image: str = "regions") -> None:
        super().__init__()
        if image not in ("regions", "pooled"):
            raise ValueError(f"image must be 'regions' or 'pooled', got {image!r}")
        self.image = image

    def forward(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Return scores (I, T), fp32 or wider, of each image's vector and each text's."""
        check_features(images, texts)
        image = image_vectors(images, self.image)
        whole = self.image == "pooled"
        text = whole_texts(texts) if whole else mean_of_places(wide(texts.words), texts.mask)
        with torch.autocast(image.device.type, enabled=False):
            return unit(image) @ unit(text).T

    if TYPE_CHECKING:
        __call__ = forward  # torch's own returns Any


def image_vectors(images: ImageFeatures, of: str) -> Tensor:
    """Return (I, D): the mean of the real "regions", or the "pooled" feature."""
    if of == "regions":
        return mean_of_places(wide(images.regions), images.mask)
    if images.pooled is None:
        raise ValueError("'pooled' got images without pooled; pass it or use 'regions'")
    return images.pooled


def unit(x: Tensor) -> Tensor:
    """Return (..., D) scaled to length 1, fp32 or wider; zero vectors stay, with gradient 0."""
    x = wide(x)
    return functional.normalize(x.masked_fill((x == 0).all(-1, keepdim=True), 0), dim=-1)
