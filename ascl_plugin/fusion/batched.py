"""The same scores for whole blocks of pairs at once, and W*, V* of a pair never written out.

A score needs of an attended vector w*_i = sum_hj a_hij U_hj, with U_hj = (y_j Zk_h) Zo_h, only

    x_i . w*_i   = sum_hj a_hij (x_i Zo_h^T) . (y_j Zk_h)     a second matrix of logits
    |w*_i|^2     = a_i^T (U U^T) a_i                          a Gram matrix made once an item
    mean_i w*_i  = mean_i(a_i) U                          and Xw, Xv, the gate act on U

so what lives per pair are attention weights, H K L of them, and not K D. Every step is a matrix
product over a block of pairs; there is no loop over images or captions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion.reference import EPS, cosine

if TYPE_CHECKING:
    from ascl_plugin.fusion.head import CrossAttention, CrossModalFusion, SliceAttention


def score_parts(
    head: CrossModalFusion, images: ImageFeatures, texts: TextFeatures
) -> tuple[Tensor, Tensor]:
    """S_local and S_global (I, T) for all pairs; memory grows with I T H K L."""
    assert images.pooled is not None
    v, w = images.regions, texts.words
    by_region, over_words, u_text = attend(head.image_to_text, v, w, images.mask, texts.mask)
    by_word, over_regions, u_image = attend(head.text_to_image, w, v, texts.mask, images.mask)
    u1 = head.direction_weight
    local = u1 * by_region + (1 - u1) * by_word.T
    # linear maps of the means, and the gate's, are taken of the values: once an item, not a pair
    with torch.autocast(v.device.type, enabled=False):
        w_g = (over_words @ head.text_global(u_text)).transpose(0, 1)  # (I, T, D)
        x_v = head.image_global(u_image)
        v_1 = over_regions @ x_v  # (I, T, D)
        v_2 = head.pooled_global(wide(images.pooled))[:, None]
        of_values, of_pooled = head.gate.weight.chunk(2, dim=1)
        logits = over_regions @ linear(x_v, of_values)
        z = torch.sigmoid(logits + linear(v_2, of_pooled, head.gate.bias))
        return local, cosine(z * v_1 + (1 - z) * v_2, w_g)


def attend(
    attention: CrossAttention | SliceAttention,
    x: Tensor,
    y: Tensor,
    x_mask: Tensor | None,
    y_mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Every item of x (A, M, D) attends to every item of y (B, N, D), with y* the attended y.

    Returns:
        mean_i cos(x_i, y*_i) (A, B) over the real places of x; their mean attention (B, A, H N) and
        the values U (B, H N, D), whose product is mean_i y*_i; all fp32 or wider. Masked keys get
        no weight; an item of y with every key masked has y* = 0.
    """
    heads, (a, m, dim), (b, n, _) = attention.num_heads, x.shape, y.shape
    keys = attention.key(y).view(b, n, heads, -1)

    def against_keys(queries: Tensor) -> Tensor:
        """All keys times queries (A, M, H, d): (B, H, N, A M), queries innermost."""
        flat = queries.reshape(a * m, heads, -1).permute(1, 2, 0)
        products = keys.permute(2, 0, 1, 3).reshape(heads, b * n, -1) @ flat
        return wide(products).view(heads, b, n, a * m).transpose(0, 1)

    logits = against_keys(attention.query(x) * attention.scale)
    if isinstance(attention.output, torch.nn.Identity):  # the values are the heads' own slices
        toward = against_keys(x)
        values = torch.diag_embed(keys.transpose(2, 3), dim1=2, dim2=4)  # (B, N, H, d, H)
        values = values.permute(0, 2, 1, 4, 3).reshape(b, heads * n, dim)
    else:
        zo = attention.output.weight.view(dim, heads, -1)  # (D, H, d), Zo_h transposed
        toward = against_keys(torch.einsum("ame,ehd->amhd", x, zo))
        values = torch.einsum("bnhd,ehd->bhne", keys, zo).reshape(b, heads * n, dim)
    values = wide(values)
    shares = _shares(x, x_mask)
    # no autocast from here on: softmax, sums and norms stay wide
    with torch.autocast(x.device.type, enabled=False):
        gram = values @ values.transpose(1, 2)
        dots, norms, means = _Attended.apply(logits, toward, gram, shares, y_mask)
        if y_mask is not None:  # an item without keys is attended to as zeros
            there = y_mask.any(1, keepdim=True)
            dots, means = dots * there, means * there[..., None]
        x_norms = wide(x).square().sum(-1).view(a * m)
        cosines = dots / (norms.clamp_min(0) * x_norms).clamp_min(EPS**2).sqrt()
        mean = (cosines.view(b, a, m) * shares).sum(-1).T
        return mean, means, values


class _Attended(torch.autograd.Function):
    """From logits to what a score needs of the attended vectors, keeping only what is large once.

    In: logits and products toward the values (B, H, N, A M), Gram matrices (B, H N, H N), shares of
    the query's places in its mean (A, M), mask of keys (B, N) or None. Out: dots (B, A M), squared
    norms (B, A M), mean attention (B, A, H N). Written by hand because these tensors are where time
    and memory go: recorded step by step, the same arithmetic takes twice of both.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, logits: Tensor, toward: Tensor, gram: Tensor, shares: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights = softmax(logits, mask).flatten(1, 2)
        toward = toward.reshape(weights.shape)
        spread = gram @ weights
        dots = (weights * toward).sum(1)
        norms = (weights * spread).sum(1)  # a sum of squares, but for rounding
        means = (weights.view(*weights.shape[:2], *shares.shape) * shares).sum(-1)
        ctx.save_for_backward(weights, toward, spread, shares)
        ctx.heads = logits.shape[1]
        return dots, norms, means.transpose(1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, d_dots: Tensor, d_norms: Tensor, d_means: Tensor
    ) -> tuple[Tensor | None, ...]:
        weights, toward, spread, shares = ctx.saved_tensors
        scaled = weights * d_norms.unsqueeze(1)
        d_gram = scaled @ weights.transpose(1, 2)
        d_weights = torch.mul(spread, 2 * d_norms.unsqueeze(1), out=scaled)
        d_weights.addcmul_(toward, d_dots.unsqueeze(1))
        by_place = d_weights.view(*weights.shape[:2], *shares.shape)
        by_place.addcmul_(shares, d_means.transpose(1, 2).unsqueeze(-1))
        by_head = d_weights.unflatten(1, (ctx.heads, -1))
        weights_by_head = weights.view(by_head.shape)
        d_logits = by_head.sub_((by_head * weights_by_head).sum(2, keepdim=True))
        d_logits = d_logits.mul_(weights_by_head)
        d_toward = (weights * d_dots.unsqueeze(1)).view(by_head.shape)
        return d_logits, d_toward, d_gram, None, None


def _shares(x: Tensor, mask: Tensor | None) -> Tensor:
    """(A, M): what each real place counts for in a mean over places, in the dtype of sums."""
    real = wide(x.detach()).new_ones(x.shape[:2]) if mask is None else mask.to(wide(x).dtype)
    return real / real.sum(-1, keepdim=True).clamp_min(1)


def softmax(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax of (B, H, N, Q) over N where `mask` (B, N) is True; of no use where nothing is."""
    if mask is None:
        return torch.softmax(logits, dim=2)
    lowest = torch.finfo(logits.dtype).min
    return torch.softmax(logits.masked_fill(~mask[:, None, :, None], lowest), dim=2)


def wide(x: Tensor) -> Tensor:
    """At least fp32: softmax, norms and sums are not taken in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
