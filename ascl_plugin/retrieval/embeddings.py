"""One vector an item: what an index of candidates is made of."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ascl_plugin.features import ImageFeatures, TextFeatures, mean_of_places

CHUNK = 2**26  # bytes of features averaged at once


@torch.no_grad()
def image_embeddings(images: ImageFeatures, of: str = "regions") -> Tensor:
    """(I, D) fp32 on the CPU, unit length.

    Args:
        images: features.
        of: "regions" (mean of the real ones) or "pooled" (the whole-image feature).

    Raises:
        ValueError: another word; "pooled" where images have no such feature.
    """
    if of not in ("regions", "pooled"):
        raise ValueError(f"embeddings are of 'regions' or 'pooled', got {of!r}")
    if of == "pooled" and images.pooled is None:
        raise ValueError("embeddings of 'pooled' got images without pooled")
    found = []
    for part in images.split(max(1, CHUNK * len(images) // max(1, images.nbytes))):
        vectors = part.pooled if of == "pooled" else mean_of_places(part.regions, part.mask)
        assert vectors is not None
        found.append(normalize(vectors.float(), dim=-1).cpu())
    return torch.cat(found)


@torch.no_grad()
def text_embeddings(texts: TextFeatures) -> Tensor:
    """(T, D) fp32 on the CPU, unit length: the mean of the real words."""
    found = [
        normalize(mean_of_places(part.words, part.mask).float(), dim=-1).cpu()
        for part in texts.split(max(1, CHUNK * len(texts) // max(1, texts.nbytes)))
    ]
    return torch.cat(found)
