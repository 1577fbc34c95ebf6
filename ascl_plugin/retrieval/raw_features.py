"""Features of a batch before any projection: as cached, or by the encoders."""

from __future__ import annotations

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.interfaces import ImageEncoder, TextEncoder

TEXT_INPUTS = (
    "input_ids", "attention_mask", "words", "word_mask", "pooled_words", "lexical_ids",
)  # fmt: skip


def raw_images(encoder: ImageEncoder, batch: dict[str, Tensor]) -> ImageFeatures:
    """Return features of N images from `pixel_values`, or cached `regions` and `pooled`.

    A cached `pooled` alone stands for regions, too.
    """
    if "regions" in batch:
        return ImageFeatures(batch["regions"], batch.get("region_mask"), batch["pooled"])
    if "pooled" in batch:
        return ImageFeatures(batch["pooled"].unsqueeze(1), None, batch["pooled"])
    return encoder(batch["pixel_values"])


def raw_texts(encoder: TextEncoder, batch: dict[str, Tensor], prefix: str = "") -> TextFeatures:
    """Return features of T texts from `input_ids`, or cached `words`, `pooled_words` or both."""
    pooled = batch.get(f"{prefix}pooled_words")
    if f"{prefix}words" in batch:
        return TextFeatures(batch[f"{prefix}words"], batch[f"{prefix}word_mask"], pooled)
    if pooled is not None:
        return TextFeatures(pooled.unsqueeze(1), None, pooled)
    return encoder(batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"])


@torch.no_grad()
def to_inputs(batch: dict[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """Move a batch to a device, except seeds and row numbers."""
    stay = ("row", "caption_index")
    return {
        k: v if k in stay or k.endswith("noise_seed") else v.to(device, non_blocking=True)
        for k, v in batch.items()
    }
