"""The attention weights of one image and one text, in both directions."""

from __future__ import annotations

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures, wide
from ascl_plugin.fusion.parameters import Attention, FusionParameters
from ascl_plugin.fusion.tile_scores import softmax


@torch.no_grad()
def attention_weights(
    head: FusionParameters, image: ImageFeatures, text: TextFeatures
) -> tuple[Tensor, Tensor]:
    """Return the softmax weights of ACF-R+ equation 6 for one pair, mean over heads.

    Args:
        head: the parameters of the fusion.
        image: features of one image, K regions.
        text: features of one text, L words.

    Returns:
        regions_to_words: (K, L), row i: the attention of region i among the words.
        words_to_regions: (L, K), row j: the attention of word j among the regions.
        A row sums to 1; masked places have no weight, and their own rows are 0. fp32 or wider.

    Raises:
        ValueError: several images or texts, or none.
    """
    if len(image) != 1 or len(text) != 1:
        raise ValueError(
            f"attention_weights takes one image and one text, got {len(image)} and {len(text)}"
        )
    v, w = image.regions[0], text.words[0]
    regions, words = _real(v, image.mask), _real(w, text.mask)
    return (
        _weights(head.image_to_text, v, regions, w, words),
        _weights(head.text_to_image, w, words, v, regions),
    )


def _weights(attention: Attention, x: Tensor, asking: Tensor, y: Tensor, keys: Tensor) -> Tensor:
    """Return (M, N): x (M, D), real where `asking`, attends to y (N, D), real where `keys`."""
    slices = attention.num_heads, -1
    query = wide(attention.query(x)).unflatten(-1, slices)
    key = wide(attention.key(y)).unflatten(-1, slices)
    logits = torch.einsum("nhd,mhd->hnm", key, query) * attention.scale
    mean = softmax(logits[None], keys[None])[0].mean(0).T
    return mean * asking[:, None] * keys


def _real(values: Tensor, mask: Tensor | None) -> Tensor:
    everywhere = torch.ones(len(values), dtype=torch.bool, device=values.device)
    return everywhere if mask is None else mask[0]
