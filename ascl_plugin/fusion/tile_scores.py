"""The scores of whole blocks of pairs at once; W* and V* of a pair are never written out.

With U_hj = (y_j Zk_h) Zo_h, a score needs of an attended vector w*_i = sum_hj a_hij U_hj only

    x_i . w*_i   = sum_hj a_hij (x_i Zo_h^T) . (y_j Zk_h)     a second matrix of logits
    |w*_i|^2     = a_i^T (U U^T) a_i                          a Gram matrix made once an item
    mean_i w*_i  = mean_i(a_i) U                          and Xw, Xv, the gate act on U

so a pair takes H K L attention weights in memory, and not K D numbers. Without projections the
second matrix is the first one, the Gram matrix falls apart into one a head, and one matrix product
serves both directions. What belongs to one side is made once (`prepare_images`, `prepare_texts`);
pairs are scored in tiles, texts of a length together, and nothing loops over single pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ascl_plugin.features import wide
from ascl_plugin.fusion.parameters import FusionParameters
from ascl_plugin.fusion.prepared import Prepared, PreparedImages, PreparedTexts
from ascl_plugin.fusion.reference import EPS, cosine

Parts = tuple[Tensor, Tensor]
FP16_MAX = torch.finfo(torch.float16).max


class Attending(Protocol):
    """Let every item attend to B items with H heads and N keys each, from Q places.

    Args:
        logits: (B, H, N, Q), of any strides.
        toward: (B, H, N, Q) products of places and values; None: the logits.
        gram: (B, H, N, N), or of all heads together (B, 1, H N, H N).
        shares: (A, Q / A) weights of an item's places in its mean; None: no means.
        mask: (B, N), True where a key is real; None: all are. Of an item without any, what is
            returned is arbitrary.
        factor: a factor of the logits, and with them of `toward` if that is None.

    Returns:
        x . y* (B, Q), |y*|^2 (B, Q), and mean attention (B, A, H N) or None.
    """

    def __call__(
        self,
        logits: Tensor,
        toward: Tensor | None,
        gram: Tensor,
        shares: Tensor | None,
        mask: Tensor | None,
        factor: float = 1.0,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return dots, squared norms and mean attention."""


class Kernels(NamedTuple):
    """The two steps that take most of a score's time, in one of the ways to do them."""

    attended: Attending
    gated_cosines: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def score_tile(
    head: FusionParameters,
    images: PreparedImages,
    texts: PreparedTexts,
    with_global: bool = True,
    together: tuple[int, int] | None = None,
    kernels: Kernels | None = None,
) -> Parts:
    """Return S_local and S_global (I, T) of all pairs of a tile.

    Attention is computed for `together` = (images, texts) at a time, by default all at once: its
    H K L weights a pair should stay in a cache, and the products of the global score are faster
    with many pairs.
    """
    kernels = kernels or Kernels(attended, gated_cosines)
    height, width = together or (len(images), len(texts))
    columns = texts.split(width)
    found = [
        [_local(head, x, y, with_global, kernels.attended) for y in columns]
        for x in images.split(height)
    ]
    local = torch.cat([torch.cat([part[0] for part in row], 1) for row in found])
    if not with_global:
        return local, local
    over_words = torch.cat([torch.cat([part[1] for part in row]) for row in found], 1)
    over_regions = torch.cat([torch.cat([part[2] for part in row], 1) for row in found])
    return local, global_score(over_words, over_regions, images, texts, kernels.gated_cosines)


def _local(
    head: FusionParameters,
    images: PreparedImages,
    texts: PreparedTexts,
    with_global: bool,
    attend: Attending,
) -> tuple[Tensor, ...]:
    """Return S_local (I, T); if `with_global`, mean weights (T, I, H L) and (I, T, H K) as well."""
    u1 = head.direction_weight
    if images.toward is not None:
        found = attend(*_logits(images, texts), texts.gram, *_asked(images, texts, with_global))
        by_region, *over_words = _local_of(found, images, texts)
        found = attend(*_logits(texts, images), images.gram, *_asked(texts, images, with_global))
        by_word, *over_regions = _local_of(found, texts, images, head.pool_words)
        return u1 * by_region + (1 - u1) * by_word.T, *over_words, *over_regions
    # (H, T, L, I, K): every product of a word and a region, scaled, for both directions
    s_1, s_2 = head.image_to_text.scale, head.text_to_image.scale
    logits = _products(texts.keys, images.queries * s_1, ranks=True)
    over_texts = logits.transpose(0, 1).flatten(3)
    found = attend(over_texts, None, texts.gram, *_asked(images, texts, with_global))
    by_region, *over_words = _local_of(found, images, texts)
    over_images = logits.permute(3, 0, 4, 1, 2).flatten(3)
    asked = _asked(texts, images, with_global)
    found = attend(over_images, None, images.gram, *asked, factor=s_2 / s_1)
    pool = partial(head.pool_words, scale=s_2)
    by_word, *over_regions = _local_of(found, texts, images, pool)
    return u1 / s_1 * by_region + (1 - u1) / s_2 * by_word.T, *over_words, *over_regions


def _asked(x: Prepared, y: Prepared, with_global: bool) -> tuple[Tensor | None, Tensor | None]:
    """Return the shares and the mask for items x that attend to items y."""
    return x.shares if with_global else None, y.mask


def global_score(
    over_words: Tensor,
    over_regions: Tensor,
    images: PreparedImages,
    texts: PreparedTexts,
    gated: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Return S_global (I, T) from mean attention over words (T, I, H L) and regions (I, T, H K).

    `gated` takes the place of `gated_cosines`.
    """
    assert images.values is not None and texts.values is not None
    assert images.pooled is not None and images.gate is not None
    with torch.autocast(over_words.device.type, enabled=False):
        w_g = (over_words @ texts.values).transpose(0, 1)  # (I, T, D)
        values = over_regions @ images.values
        return (gated or gated_cosines)(values, w_g, images.pooled, images.gate)


def gated_cosines(values: Tensor, words: Tensor, pooled: Tensor, gate: Tensor) -> Tensor:
    """Return cos(z v + (1 - z) G, w) (I, T) with z = sigmoid(logits + gate).

    Args:
        values: (I, T, 2 D) v and logits.
        words: (I, T, D) w.
        pooled, gate: (I, D) G and the gate.
    """
    v_1, logits = values.chunk(2, dim=-1)
    z = torch.sigmoid(logits + gate[:, None])
    return cosine(torch.lerp(pooled[:, None].expand_as(z), v_1, z), words)


def _products(keys: Tensor, queries: Tensor, ranks: bool) -> Tensor:
    """Multiply keys (B, N, H, d) and queries (A, M, H, d): (H, B, N, A, M), fp32 or wider.

    The precision is that of autocast, unless the products enter a score as they are (`ranks`) and
    no gradient is wanted: half precision would change the order of neighbors in a ranking.
    """
    (b, n), (a, m) = keys.shape[:2], queries.shape[:2]
    exact = ranks and not torch.is_grad_enabled()
    autocast = torch.is_autocast_enabled(keys.device.type) and not exact
    if exact:
        keys, queries = wide(keys), wide(queries)
    dtype = torch.get_autocast_dtype(keys.device.type) if autocast else keys.dtype
    if dtype == torch.float16:
        keys, queries = keys.clamp(-FP16_MAX, FP16_MAX), queries.clamp(-FP16_MAX, FP16_MAX)
    with torch.autocast(keys.device.type, enabled=autocast):
        products = keys.flatten(0, 1).transpose(0, 1) @ queries.flatten(0, 1).permute(1, 2, 0)
    if dtype == torch.float16:  # the softmax of infinities is nan
        with torch.no_grad():
            products.clamp_(-FP16_MAX, FP16_MAX)
    return wide(products).view(-1, b, n, a, m)


def _logits(x: Prepared, y: Prepared) -> tuple[Tensor, Tensor]:
    """Return logits of projected attention and products toward the values: (B, H, N, A M) each."""
    assert x.toward is not None
    logits = _products(y.keys, x.queries, ranks=False)
    toward = _products(y.keys, x.toward, ranks=True)
    return logits.transpose(0, 1).flatten(3), toward.transpose(0, 1).flatten(3)


def _local_of(
    found: tuple[Tensor, Tensor, Tensor | None],
    x: Prepared,
    y: Prepared,
    pool: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """Return local scores (A, B), and mean attention (B, A, H N) if any, of items x attending to y.

    Args:
        found: what `Attending` returns.
        x, y: the items that attend, and those attended to; of one with every key masked y* = 0.
        pool: (cosines of places, shares) -> one score an item; by default the mean.
    """
    dots, norms, means = found
    b, (a, m) = len(y), x.shares.shape
    with torch.autocast(dots.device.type, enabled=False):
        if y.mask is not None:  # an item without keys is attended to as zeros
            there = y.mask.any(1, keepdim=True)
            dots = dots * there
            means = None if means is None else means * there[..., None]
        # the cosine of a zero vector is 0, with gradient 0; rounding may leave its norm below 0
        squared = norms * x.norms.view(a * m)
        cosines = torch.where(squared <= 0, 0, dots * squared.clamp_min(EPS**2).rsqrt())
        cosines = cosines.view(b, a, m)
        local = (pool(cosines, x.shares) if pool else (cosines * x.shares).sum(-1)).T
        return (local,) if means is None else (local, means)


def attended(
    logits: Tensor,
    toward: Tensor | None,
    gram: Tensor,
    shares: Tensor | None,
    mask: Tensor | None,
    factor: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return dots, squared norms and mean attention: `Attending`, in torch, with gradients."""
    (b, heads), apart = logits.shape[:2], gram.shape[1]

    def by_head(x: Tensor) -> Tensor:  # heads that share no Gram matrix: items of their own
        return x.transpose(0, 1).flatten(0, 1).unsqueeze(1).contiguous()

    with torch.autocast(logits.device.type, enabled=False):
        if apart == heads:
            logits, gram = by_head(logits), gram.transpose(0, 1).flatten(0, 1)
            toward = None if toward is None else by_head(toward)
            mask = None if mask is None else mask.repeat(heads, 1)
        else:
            gram = gram.flatten(0, 1)
        logits = logits if factor == 1 else logits * factor
        toward = logits if toward is None else toward
        dots, norms, means = Attended.apply(logits, toward, gram, shares, mask)
        if apart == heads:
            dots, norms = (part.unflatten(0, (heads, b)).sum(0) for part in (dots, norms))
            if means is not None:
                means = means.unflatten(0, (heads, b)).permute(1, 2, 0, 3).flatten(2)
        return dots, norms, means


class Attended(torch.autograd.Function):
    """The step from logits to products and norms of attended vectors, with few tensors kept.

    In: logits and products toward the values (B, H, N, A M), Gram matrices (B, H N, H N), shares of
    the query's places in its mean (A, M) or None if no mean is wanted, mask of keys (B, N) or
    None. Out: dots (B, A M), squared norms (B, A M), mean attention (B, A, H N) or None. The
    backward pass is written by hand because these tensors take most time and memory: recorded
    step by step, the same arithmetic takes twice the time and three times the memory.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        logits: Tensor,
        toward: Tensor,
        gram: Tensor,
        shares: Tensor | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return dots, squared norms and mean attention."""
        weights = softmax(logits, mask).flatten(1, 2)
        toward = toward.reshape(weights.shape)
        spread = gram @ weights
        norms = spread.mul_(weights).sum(1)  # a sum of squares, but for rounding
        dots = torch.mul(weights, toward, out=spread).sum(1)
        means = None
        if shares is not None:
            by_place = weights.view(*weights.shape[:2], *shares.shape)
            means = (by_place * shares).sum(-1).transpose(1, 2)
        ctx.save_for_backward(weights, toward, gram, shares)
        ctx.heads = logits.shape[1]
        return dots, norms, means

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, d_dots: Tensor, d_norms: Tensor, d_means: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of logits, toward and gram."""
        weights, toward, gram, shares = ctx.saved_tensors
        scaled = weights * d_norms.unsqueeze(1)
        d_gram = scaled @ weights.transpose(1, 2)
        d_weights = torch.matmul(gram, scaled).mul_(2)  # a Gram matrix is symmetric
        d_weights.addcmul_(toward, d_dots.unsqueeze(1))
        if d_means is not None:
            by_place = d_weights.view(*weights.shape[:2], *shares.shape)
            by_place.addcmul_(shares, d_means.transpose(1, 2).unsqueeze(-1))
        by_head = d_weights.unflatten(1, (ctx.heads, -1))
        weights_by_head = weights.view(by_head.shape)
        d_logits = by_head.sub_((by_head * weights_by_head).sum(2, keepdim=True))
        d_logits = d_logits.mul_(weights_by_head)
        d_toward = torch.mul(weights, d_dots.unsqueeze(1), out=scaled).view(by_head.shape)
        return d_logits, d_toward, d_gram, None, None


def softmax(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Return the softmax of (B, H, N, Q) over N where `mask` (B, N) is True; else arbitrary."""
    if mask is None:
        return torch.softmax(logits, dim=2)
    lowest = torch.finfo(logits.dtype).min
    return torch.softmax(logits.masked_fill(~mask[:, None, :, None], lowest), dim=2)
