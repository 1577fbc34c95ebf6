"""The published evaluation, in which a text has seen its own image before it is compared.

It is here to reproduce and to measure what that does to numbers, and for nothing else: the pairing
that is to be found enters the score, so recall is far above chance even on noise.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ascl_plugin.features import ImageFeatures, TextFeatures, mean_of_places, wide
from ascl_plugin.fusion import CrossModalFusion
from ascl_plugin.fusion.prepared import (
    PreparedImages,
    PreparedTexts,
    prepare_images,
    prepare_texts,
)
from ascl_plugin.fusion.reference import fuse

# what a table calls the row of recall under it
ROW = "paired (leaks)"
LEAKS = (
    'protocol "paired" leaks: each text attends to its own image before it is compared with all, '
    "so the answer is in the score; such numbers cannot be set beside honest ones"
)
PAIRS = 2**26  # bytes of attended vectors at once


class PairedProtocol(nn.Module):
    """Scores of a fusion head as the authors' public code evaluates it. It leaks; it warns.

    ::

        W_g(t) = Xw mean_i(w*_i)                            t attended over its own image
        V_g(i) = Fusion(Xv mean_j(v*_j), Xg G)              i attended over its own first caption
        S = u2 S_local(i, t) + (1 - u2) cos(V_g(i), W_g(t))

    The local part is the head's own, of the candidate pair. `audit` fails it.

    Args:
        head: a `CrossModalFusion`.

    Raises:
        TypeError: another scorer.
    """

    def __init__(self, head: CrossModalFusion) -> None:
        super().__init__()
        if not isinstance(head, CrossModalFusion):
            raise TypeError(f"PairedProtocol takes a CrossModalFusion, got {type(head).__name__}")
        warnings.warn(LEAKS, UserWarning, stacklevel=2)
        self.head = head

    def forward(
        self,
        images: ImageFeatures,
        texts: TextFeatures,
        caption_to_image: Sequence[int] | Tensor | None = None,
    ) -> Tensor:
        """Scores (I, T) of a whole gallery; by default text i belongs to image i."""
        owners = torch.arange(len(texts)) if caption_to_image is None else caption_to_image
        vectors = self.vectors(images, texts, owners)
        return self.combine(LocalScore(self.head)(images, texts), *vectors)

    def vectors(
        self, images: ImageFeatures, texts: TextFeatures, caption_to_image: Any
    ) -> tuple[Tensor, Tensor]:
        """V_g (I, D) and W_g (T, D), unit length, where the head is.

        Raises:
            ValueError: caption_to_image without an image for each text, or leaving one out.
        """
        owners = torch.as_tensor(caption_to_image).cpu().long()
        if owners.shape != (len(texts),):
            raise ValueError(
                f"caption_to_image has shape {tuple(owners.shape)}, there are {len(texts)} texts"
            )
        if len(owners) and not 0 <= int(owners.min()) <= int(owners.max()) < len(images):
            raise ValueError(f"caption_to_image points beyond the {len(images)} images")
        first = torch.full((len(images),), len(texts)).scatter_reduce(
            0, owners, torch.arange(len(texts)), "amin"
        )
        if (first == len(texts)).any():
            alone = int((first == len(texts)).nonzero()[0])
            raise ValueError(f"caption_to_image: image {alone} has no caption to attend to")
        head, device = self.head, self.head.gate.weight.device
        step = max(1, PAIRS // (4 * images.regions[:1].nbytes + 4 * texts.words[:1].nbytes))
        w_g, v_g = [], []
        for chunk in torch.arange(len(texts)).split(step):
            v, w = images[owners[chunk]].to(device), texts[chunk].to(device)
            seen = attended_mean(head.image_to_text, v.regions, w.words, v.mask, w.mask)
            w_g.append(normalize(head.text_global(seen), dim=-1))
        for chunk in torch.arange(len(images)).split(step):
            v, w = images[chunk].to(device), texts[first[chunk]].to(device)
            assert v.pooled is not None
            seen = attended_mean(head.text_to_image, w.words, v.regions, w.mask, v.mask)
            fused = fuse(head, head.image_global(seen), head.pooled_global(v.pooled))
            v_g.append(normalize(fused, dim=-1))
        return torch.cat(v_g), torch.cat(w_g)

    def combine(self, local: Tensor, v_g: Tensor, w_g: Tensor) -> Tensor:
        """u2 S_local + (1 - u2) S_global of a block, from its local scores and unit vectors."""
        u2 = self.head.local_weight
        return u2 * local + (1 - u2) * (v_g @ w_g.T).to(local)


class LocalScore:
    """The local part of a head's score, as a scorer of its own."""

    def __init__(self, head: CrossModalFusion) -> None:
        self.head = head

    def __call__(
        self, images: ImageFeatures | PreparedImages, texts: TextFeatures | PreparedTexts
    ) -> Tensor:
        """S_local (I, T)."""
        return self.head.score_parts(images, texts, with_global=False)[0]

    def prepare_images(self, images: ImageFeatures) -> PreparedImages:
        """What `head.prepare_images` gives, less what only a global score needs."""
        return prepare_images(self.head, images, with_global=False)

    def prepare_texts(self, texts: TextFeatures) -> PreparedTexts:
        """What `head.prepare_texts` gives, less what only a global score needs."""
        return prepare_texts(self.head, texts, with_global=False)


def attended_mean(
    attention: Any, x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None
) -> Tensor:
    """mean_i y*_i (N, D): the real places of x (N, M, D) attend to those of y (N, P, D), pairwise.

    `reference.multi_head` for N pairs at once.
    """
    heads = attention.num_heads
    queries = attention.query(x).unflatten(-1, (heads, -1)).transpose(1, 2)
    keys = attention.key(y).unflatten(-1, (heads, -1)).transpose(1, 2)
    logits = wide(queries @ keys.transpose(2, 3) * attention.scale)
    if y_mask is not None:
        lowest = torch.finfo(logits.dtype).min
        logits = logits.masked_fill(~y_mask[:, None, None, :], lowest)
    attended = (torch.softmax(logits, -1).to(keys) @ keys).transpose(1, 2).flatten(2)
    return mean_of_places(attention.output(attended), x_mask)
