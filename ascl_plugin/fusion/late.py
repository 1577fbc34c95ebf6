"""Late interaction: each word looks for its best region. Cheap, and a teacher of alignment."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion.pooled import PooledSimilarity


class LateInteraction(nn.Module):
    """S = u2 mean_j max_i cos(w_j, v_i) + (1 - u2) cos(G, mean_j w_j), without parameters.

    One matrix product scores a block of pairs, at a small part of what cross-modal attention
    costs. Encoders learn from scratch with it in far fewer seconds; attention that starts as a
    similarity in the joint space, as `CrossModalFusion` does, goes on from there. The scorer is
    that of ColBERT (Khattab and Zaharia, 2020) and, word to region, FILIP (Yao et al., 2022).

    Args:
        dim: width D; kept for a uniform signature, there are no parameters.
        local_weight: u2, the weight of words and regions against wholes, in [0, 1]; at 1 images
            need no pooled feature.

    Shapes:
        images.regions (I, K, D), images.pooled (I, D), texts.words (T, L, D) -> (I, T), fp32 or
        wider.
    """

    def __init__(self, dim: int = 1024, local_weight: float = 1.0) -> None:
        super().__init__()
        self.dim = dim
        self.local_weight = local_weight
        self.whole = PooledSimilarity(dim, "pooled")

    def forward(self, images: ImageFeatures, texts: TextFeatures, backend: str = "auto") -> Tensor:
        """Scores of all pairs."""
        local = self._late(images, texts)
        if self.local_weight == 1:
            return local
        return self.local_weight * local + (1 - self.local_weight) * self.whole(images, texts)

    def _late(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        v = nn.functional.normalize(images.regions, dim=-1)
        w = nn.functional.normalize(texts.words, dim=-1)
        cosines = w.flatten(0, 1) @ v.flatten(0, 1).T
        cosines = cosines.view(*w.shape[:2], *v.shape[:2])  # (T, L, I, K)
        if images.mask is not None:
            cosines = cosines.masked_fill(~images.mask, torch.finfo(cosines.dtype).min)
        best = cosines.amax(-1).to(torch.promote_types(cosines.dtype, torch.float32))
        if texts.mask is None:
            return best.mean(1).T
        real = texts.mask.to(best.dtype)
        shares = real / real.sum(1, keepdim=True).clamp_min(1)
        return (best * shares[..., None]).sum(1).T
