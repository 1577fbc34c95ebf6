"""The same scores for whole blocks of pairs at once, and W*, V* of a pair never written out.

A score needs of an attended vector w*_i = sum_hj a_hij U_hj, with U_hj = (y_j Zk_h) Zo_h, only

    x_i . w*_i   = sum_hj a_hij (x_i Zo_h^T) . (y_j Zk_h)     a second matrix of logits
    |w*_i|^2     = a_i^T (U U^T) a_i                          a Gram matrix made once an item
    mean_i w*_i  = mean_i(a_i) U

so what lives per pair are attention weights, H K L of them, and not K D. Every step is a matrix
product over a block of pairs; there is no loop over images or captions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion.reference import EPS, cosine, fuse

if TYPE_CHECKING:
    from ascl_plugin.fusion.head import CrossAttention, CrossModalFusion, SliceAttention


def score_parts(
    head: CrossModalFusion, images: ImageFeatures, texts: TextFeatures
) -> tuple[Tensor, Tensor]:
    """S_local and S_global (I, T) for all pairs; memory grows with I T H K L."""
    assert images.pooled is not None
    v, w = images.regions, texts.words
    by_region, mean_w = attend(head.image_to_text, v, w, images.mask, texts.mask)
    by_word, mean_v = attend(head.text_to_image, w, v, texts.mask, images.mask)
    u1 = head.direction_weight
    local = u1 * by_region + (1 - u1) * by_word.T
    w_g = head.text_global(mean_w)  # (I, T, D)
    v_g = head.image_global(mean_v).transpose(0, 1)
    g = head.pooled_global(images.pooled)[:, None].expand_as(v_g)
    return local, cosine(wide(fuse(head, v_g, g)), wide(w_g))


def attend(
    attention: CrossAttention | SliceAttention,
    x: Tensor,
    y: Tensor,
    x_mask: Tensor | None,
    y_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Every item of x (A, M, D) attends to every item of y (B, N, D), with y* the attended y.

    Returns:
        mean_i cos(x_i, y*_i) (A, B) and mean_i y*_i (A, B, D), over the real places of x; fp32 or
        wider. Masked keys get no weight; an item of y with every key masked has y* = 0.
    """
    heads, (a, m, dim), (b, n, _) = attention.num_heads, x.shape, y.shape
    keys = attention.key(y).view(b, n, heads, -1)

    def against_keys(queries: Tensor) -> Tensor:
        """(A, M, H, d) times all keys, (B, A M, H, N)."""
        flat = queries.reshape(a * m, heads, -1).transpose(0, 1)
        products = wide(flat @ keys.permute(2, 3, 0, 1).reshape(heads, -1, b * n))
        return products.view(heads, a * m, b, n).permute(2, 1, 0, 3)

    logits = against_keys(attention.query(x)) * attention.scale
    weights = softmax(logits, None if y_mask is None else y_mask[:, None, None])
    if isinstance(attention.output, torch.nn.Identity):  # the values are the heads' own slices
        toward = against_keys(x)
        values = torch.diag_embed(keys.transpose(2, 3), dim1=2, dim2=4)  # (B, N, H, d, H)
        values = values.permute(0, 2, 1, 4, 3).reshape(b, heads * n, dim)
    else:
        zo = attention.output.weight.view(dim, heads, -1)  # (D, H, d), Zo_h transposed
        toward = against_keys(torch.einsum("ame,ehd->amhd", x, zo))
        values = torch.einsum("bnhd,ehd->bhne", keys, zo).reshape(b, heads * n, dim)
    weights = weights.reshape(b, a * m, heads * n)
    dot = (weights * toward.reshape(weights.shape)).sum(-1)
    values = wide(values)
    gram = values @ values.transpose(1, 2)
    norm = ((weights @ gram) * weights).sum(-1)  # squared, and a sum of squares but for rounding
    x_norm = wide(x).square().sum(-1).view(a * m)
    cosines = dot / (norm.clamp_min(0) * x_norm).clamp_min(EPS**2).sqrt()
    means = masked_mean(weights.view(b, a, m, -1).transpose(2, 3), x_mask)  # (B, A, H N)
    return masked_mean(cosines.view(b, a, m), x_mask).T, (means @ values).transpose(0, 1)


def softmax(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last axis where `mask` is True; zeros where nothing is."""
    if mask is None:
        return torch.softmax(logits, dim=-1)
    logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    return torch.softmax(logits, dim=-1) * mask


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the last axis (places) of (..., items, places) or (B, items, Q, places)."""
    if mask is None:
        return values.mean(-1)
    shares = (mask / mask.sum(-1, keepdim=True).clamp_min(1)).to(values.dtype)
    if values.ndim == 4:
        shares = shares[:, None]
    return (values * shares).sum(-1)


def wide(x: Tensor) -> Tensor:
    """At least fp32: softmax, norms and sums are not taken in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
