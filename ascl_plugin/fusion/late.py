"""Late interaction: each word looks for its best region, and back. A cheap teacher of alignment."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ascl_plugin.features import ImageFeatures, TextFeatures, wide
from ascl_plugin.fusion.pooled import PooledSimilarity, unit


class LateInteraction(nn.Module):
    """The local score of `CrossModalFusion` with a maximum in place of attention, and a global one.

    S_local  = u1 mean_i max_j cos(v_i, w_j) + (1 - u1) mean_j max_i cos(w_j, v_i)
    S_global = cos(G, mean_j w_j)
    S        = u2 S_local + (1 - u2) S_global

    There are no parameters, and one matrix product scores a block of pairs, at a small part of what
    cross-modal attention costs. Encoders learn from scratch with it in far fewer seconds; attention
    that starts as a similarity in the joint space, as `CrossModalFusion` does, goes on from there.
    With u1 = 0 the scorer is that of ColBERT (Khattab and Zaharia, 2020), with u1 = 1/2 that of
    FILIP (Yao et al., 2022) with its two directions added.

    Args:
        dim: width D; kept for a uniform signature.
        local_weight: u2, the weight of words and regions against wholes, in [0, 1]; at 1 images
            need no pooled feature.
        direction_weight: u1, the weight of region-to-text against word-to-image, in [0, 1].

    Shapes:
        images.regions (I, K, D), images.pooled (I, D), texts.words (T, L, D) -> (I, T), fp32 or
        wider.
    """

    def __init__(
        self, dim: int = 1024, local_weight: float = 1.0, direction_weight: float = 0.0
    ) -> None:
        super().__init__()
        self.dim = dim
        self.local_weight = local_weight
        self.direction_weight = direction_weight
        self.whole = PooledSimilarity(dim, "pooled")

    def forward(self, images: ImageFeatures, texts: TextFeatures, backend: str = "auto") -> Tensor:
        """Scores of all pairs."""
        local = self._local(images, texts)
        if self.local_weight == 1:
            return local
        return self.local_weight * local + (1 - self.local_weight) * self.whole(images, texts)

    def _local(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        v, w = unit(images.regions).to(images.regions), unit(texts.words).to(texts.words)
        cosines = w.flatten(0, 1) @ v.flatten(0, 1).T
        cosines = cosines.view(*w.shape[:2], *v.shape[:2])  # (T, L, I, K)
        u1, local = self.direction_weight, torch.zeros((), device=cosines.device)
        if u1 < 1:
            real = None if images.mask is None else images.mask[None, None]
            local = (1 - u1) * _mean(wide(_highest(cosines, real, 3)), texts.mask, 1)
        if u1 > 0:
            real = None if texts.mask is None else texts.mask[:, :, None, None]
            local = local + u1 * _mean(wide(_highest(cosines, real, 1)), images.mask, 2)
        return local.T


def _highest(cosines: Tensor, real: Tensor | None, axis: int) -> Tensor:
    """The maximum over an axis where `real`; 0 where nothing is."""
    if real is None:
        return cosines.amax(axis)
    best = cosines.masked_fill(~real, torch.finfo(cosines.dtype).min).amax(axis)
    return best.masked_fill(~real.any(axis), 0)


def _mean(values: Tensor, mask: Tensor | None, axis: int) -> Tensor:
    """(T, L, I) over real words, or (T, I, K) over real regions: (T, I)."""
    if mask is None:
        return values.mean(axis)
    real = mask.to(values.dtype)
    shares = real / real.sum(1, keepdim=True).clamp_min(1)
    return (values * (shares[..., None] if axis == 1 else shares)).sum(axis)
