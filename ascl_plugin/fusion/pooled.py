"""Scoring without cross-modal fusion: the ablation "w/o MF", and the plain dual encoder."""

from __future__ import annotations

from torch import Tensor, nn

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion.batched import masked_mean
from ascl_plugin.fusion.reference import cosine


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
        """Scores (I, T), each image's vector against each text's mean word."""
        if self.image == "pooled":
            if images.pooled is None:
                raise ValueError("PooledSimilarity(image='pooled') got images without pooled")
            image = images.pooled
        else:
            image = masked_mean(images.regions.transpose(-1, -2), _across(images.mask))
        text = masked_mean(texts.words.transpose(-1, -2), _across(texts.mask))
        return cosine(image.float()[:, None], text.float()[None])


def _across(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask[:, None]
