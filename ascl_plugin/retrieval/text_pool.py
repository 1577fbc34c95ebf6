"""One vector of a text from the words of its encoder, before any projection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ascl_plugin.features import TextFeatures, mean_of_places

TEXT_POOLS = ("none", "mean", "max", "mean_max", "gpo")
ANGLES = 8  # frequencies of a position's encoding


class TextPool(nn.Module):
    """Mean, maximum, or both side by side, of the real words; or a learned mixture of ranks (gpo).

    `gpo` is the generalized pooling of VSE-infinity (Chen et al., "Learning the Best Pooling
    Strategy for Visual Semantic Embedding", CVPR 2021): each channel's values are sorted, and the
    k-th highest of n gets a weight theta(k, n), the same for all channels. Here theta is a softmax
    over k of a small network on sinusoids of k and of n - k, in place of their recurrent one; it
    starts as the mean.

    Args:
        kind: one of `TEXT_POOLS` except "none".
        width: D_w of a word.

    Attributes:
        width: that of the result, 2 D_w for "mean_max".

    Shapes:
        words (T, L, D_w) -> (T, width); 0 for a text without a word.
    """

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.width = 2 * width if kind == "mean_max" else width
        if kind == "gpo":
            last = nn.Linear(32, 1)
            self.theta = nn.Sequential(nn.Linear(4 * ANGLES, 32), nn.ReLU(), last)
            nn.init.zeros_(last.weight)

    def forward(self, texts: TextFeatures) -> Tensor:
        """Return the pooled words."""
        words, mask = texts.words, texts.mask
        if self.kind == "mean":
            return mean_of_places(words, mask)
        if mask is None:
            mask = torch.ones(words.shape[:2], dtype=torch.bool, device=words.device)
        low = words.masked_fill(~mask[..., None], torch.finfo(words.dtype).min)
        if self.kind == "gpo":
            return self._generalized(low, mask.sum(1))
        highest = low.amax(1) * mask.any(1, keepdim=True)
        if self.kind == "max":
            return highest
        return torch.cat([mean_of_places(words, mask), highest], 1)

    if TYPE_CHECKING:
        __call__ = forward  # torch's own returns Any

    def of_text(self, words: Tensor) -> Tensor:
        """Return the pooled words (width,) of one text, (L, D_w)."""
        return self(TextFeatures(words[None], None))[0]

    def joined(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (T, width) of texts of two parts, of the pooled parts; not for "gpo".

        Means are averaged, whatever the lengths of the parts.
        """
        mean, highest = (first + second) / 2, torch.maximum(first, second)
        if self.kind != "mean_max":
            return mean if self.kind == "mean" else highest
        half = self.width // 2
        return torch.cat([mean[:, :half], highest[:, half:]], 1)

    def _generalized(self, words: Tensor, counts: Tensor) -> Tensor:
        ranks = torch.arange(words.shape[1], device=words.device)
        real = ranks < counts[:, None]  # after sorting, padding comes last
        below = (counts[:, None] - 1 - ranks).clamp_min(0)
        places = torch.cat([_sinusoids(ranks.expand_as(below)), _sinusoids(below)], -1)
        logits = self.theta(places.to(words.dtype)).squeeze(-1)
        theta = torch.softmax(logits.masked_fill(~real, torch.finfo(logits.dtype).min), 1) * real
        ordered = words.sort(dim=1, descending=True).values.masked_fill(~real[..., None], 0)
        return (ordered * theta[..., None]).sum(1)


def _sinusoids(positions: Tensor) -> Tensor:
    """Return (..., 2 ANGLES) sines and cosines of whole numbers, periods from 6 to some 800."""
    speeds = 2.0 ** -torch.arange(ANGLES, device=positions.device)
    angles = positions[..., None] * speeds
    return torch.cat([angles.sin(), angles.cos()], -1)
