"""The fusion equations as printed, one pair at a time: for reading, and for tests to hold to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures, wide

if TYPE_CHECKING:
    from ascl_plugin.fusion.head import CrossAttention, CrossModalFusion, SliceAttention

EPS = 1e-8


def score_parts(
    head: CrossModalFusion, images: ImageFeatures, texts: TextFeatures, with_global: bool = True
) -> tuple[Tensor, Tensor]:
    """S_local and S_global (I, T) of ACF-R+ equations 13 and 14, pair by pair."""
    assert images.pooled is not None
    local, glob = [], []
    for i in range(len(images)):
        v = _real(images.regions, images.mask, i)
        for t in range(len(texts)):
            w = _real(texts.words, texts.mask, t)
            s_local, s_global = score_pair(head, v, images.pooled[i], w)
            local.append(s_local)
            glob.append(s_global)
    shape = len(images), len(texts)
    return torch.stack(local).view(shape), torch.stack(glob).view(shape)


def score_pair(head: CrossModalFusion, v: Tensor, g: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of one image, regions v (K, D) and pooled g (D,), and one text, words w (L, D)."""
    w_star = multi_head(head.image_to_text, v, w)  # (K, D), equation 6
    v_star = multi_head(head.text_to_image, w, v)  # (L, D)
    u1 = head.direction_weight
    s_local = u1 * mean(cosine(v, w_star)) + (1 - u1) * mean(cosine(w, v_star))  # 13
    w_g = head.text_global(mean(w_star))  # 7, 8
    v_g = fuse(head, head.image_global(mean(v_star)), head.pooled_global(g))  # 9-12
    return s_local, cosine(v_g, w_g)  # 14


def multi_head(attention: CrossAttention | SliceAttention, x: Tensor, y: Tensor) -> Tensor:
    """x (M, D) attends to y (N, D): Concat_h(softmax(x_h y_h^T scale) y_h) Zo, (M, D)."""
    heads = attention.num_heads
    queries = attention.query(x).chunk(heads, dim=-1)
    keys = attention.key(y).chunk(heads, dim=-1)
    attended = [
        torch.softmax(q @ k.T * attention.scale, dim=-1) @ k
        for q, k in zip(queries, keys, strict=True)
    ]
    return attention.output(torch.cat(attended, dim=-1))


def fuse(head: CrossModalFusion, a: Tensor, b: Tensor) -> Tensor:
    """The gate in place of the papers' undefined Fusion: z a + (1 - z) b."""
    z = torch.sigmoid(head.gate(torch.cat([a, b], dim=-1)))
    return z * a + (1 - z) * b


def mean(places: Tensor) -> Tensor:
    """Over the first axis; of no place, 0."""
    return places.mean(0) if len(places) else places.sum(0)


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """R(x, y) along the last axis; 0, with gradient 0, where a vector is zero."""
    x, y = wide(x), wide(y)
    squared = x.square().sum(-1) * y.square().sum(-1)
    cosines = (x * y).sum(-1) / squared.clamp_min(EPS**2).sqrt()
    return torch.where(squared <= 0, 0, cosines)  # what is no number stays none


def _real(values: Tensor, mask: Tensor | None, index: int) -> Tensor:
    return values[index] if mask is None else values[index][mask[index]]
