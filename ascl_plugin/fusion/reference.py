"""The fusion equations as printed, one pair at a time: for reading, and as the tests' reference."""

from __future__ import annotations

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures, whole_texts, wide
from ascl_plugin.fusion.parameters import Attention, FusionParameters

EPS = 1e-8


def score_parts(
    head: FusionParameters, images: ImageFeatures, texts: TextFeatures, with_global: bool = True
) -> tuple[Tensor, Tensor]:
    """Return S_local and S_global (I, T) of ACF-R+ equations 13 and 14, pair by pair."""
    local, glob = [], []
    wholes = whole_texts(texts)
    for i in range(len(images)):
        v = _real(images.regions, images.mask, i)
        g = images.pooled[i] if with_global and images.pooled is not None else None
        for t in range(len(texts)):
            s_local, s_global = score_pair(head, v, g, _real(texts.words, texts.mask, t), wholes[t])
            local.append(s_local)
            glob.append(s_global)
    shape = len(images), len(texts)
    return torch.stack(local).view(shape), torch.stack(glob).view(shape)


def score_pair(
    head: FusionParameters, v: Tensor, g: Tensor | None, w: Tensor, whole: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Score one image, regions v (K, D) and pooled g (D,), and one text, words w (L, D).

    `whole` (D,) is the text's pooled feature, by default its mean word. Without g the local score
    takes the place of the global one.
    """
    w_star = multi_head(head.image_to_text, v, w)  # (K, D), equation 6
    v_star = multi_head(head.text_to_image, w, v)  # (L, D)
    u1 = head.direction_weight
    by_word = pool_words(head, cosine(w, v_star))
    s_local = u1 * mean(cosine(v, w_star)) + (1 - u1) * by_word  # 13
    if g is None:
        return s_local, s_local
    plain = cosine(g, mean(w) if whole is None else whole)
    if not head.attends_globally:
        return s_local, plain
    w_g = head.text_global(mean(w_star))  # 7, 8
    v_g = fuse(head, head.image_global(mean(v_star)), head.pooled_global(g))  # 9-12
    attended = cosine(v_g, w_g)  # 14
    return s_local, (attended + plain) / 2 if head.compares_wholes else attended


def pool_words(head: FusionParameters, x: Tensor) -> Tensor:
    """Return one score of the words' scores x (L,): the mean, as printed, or see `WordPooling`."""
    pool = head.pool_words
    if pool.kind == "mean" or not len(x):
        return mean(x)
    softmin = (x * torch.softmax(-x / pool.temperature, dim=0)).sum()
    if pool.kind == "softmin":
        return softmin
    weight = pool.weight.squeeze()
    return (1 - weight) * mean(x) + weight * softmin


def multi_head(attention: Attention, x: Tensor, y: Tensor) -> Tensor:
    """Return Concat_h(softmax(x_h y_h^T scale) y_h) Zo (M, D): x (M, D) attends to y (N, D)."""
    heads = attention.num_heads
    queries = attention.query(x).chunk(heads, dim=-1)
    keys = attention.key(y).chunk(heads, dim=-1)
    attended = [
        torch.softmax(q @ k.T * attention.scale, dim=-1) @ k
        for q, k in zip(queries, keys, strict=True)
    ]
    return attention.output(torch.cat(attended, dim=-1))


def fuse(head: FusionParameters, a: Tensor, b: Tensor) -> Tensor:
    """Return z a + (1 - z) b, the gate in place of the papers' undefined Fusion."""
    z = torch.sigmoid(head.gate(torch.cat([a, b], dim=-1)))
    return z * a + (1 - z) * b


def mean(places: Tensor) -> Tensor:
    """Return the mean over the first axis; 0 if that is empty."""
    return places.mean(0) if len(places) else places.sum(0)


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Return R(x, y) along the last axis; 0, with gradient 0, where a vector is zero."""
    x, y = wide(x), wide(y)
    squared = x.square().sum(-1) * y.square().sum(-1)
    cosines = (x * y).sum(-1) / squared.clamp_min(EPS**2).sqrt()
    return torch.where(squared <= 0, 0, cosines)  # nan stays nan


def _real(values: Tensor, mask: Tensor | None, index: int) -> Tensor:
    return values[index] if mask is None else values[index][mask[index]]
