"""Scoring without cross-modal fusion: the ablation "w/o MF", and the plain dual encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ascl_plugin.features import ImageFeatures, TextFeatures, mean_of_places, wide


class PooledSimilarity(nn.Module):
    """Cosine of one vector an image and one a text; nothing is attended across modalities.

    Args:
        dim: width D; kept for a uniform signature, there are no parameters.
        image: "regions" (mean of the regions) or "pooled" (the whole-image feature).

    Shapes:
        images.regions (I, K, D) or images.pooled (I, D), texts.words (T, L, D) -> (I, T).
    """

    def __init__(self, dim: int = 1024, image: str = "regions") -> None:
        super().__init__()
        if image not in ("regions", "pooled"):
            raise ValueError(f"image must be 'regions' or 'pooled', got {image!r}")
        self.dim = dim
        self.image = image

    def forward(self, images: ImageFeatures, texts: TextFeatures, backend: str = "auto") -> Tensor:
        """Scores (I, T), fp32 or wider, each image's vector against each text's mean word."""
        if self.image == "pooled":
            if images.pooled is None:
                raise ValueError("PooledSimilarity(image='pooled') got images without pooled")
            image = images.pooled
        else:
            image = mean_of_places(wide(images.regions), images.mask)
        text = mean_of_places(wide(texts.words), texts.mask)
        with torch.autocast(image.device.type, enabled=False):
            return unit(image) @ unit(text).T


def unit(x: Tensor) -> Tensor:
    """Vectors (..., D) of length 1, fp32 or wider; zero vectors as they are, with gradient 0."""
    x = wide(x)
    return functional.normalize(x.masked_fill((x == 0).all(-1, keepdim=True), 0), dim=-1)
