"""Local scores of chosen pairs alone, with gradients: a few thousand of a batch's million.

The factored equations of `tile_scores`, on gathered pairs in place of all pairs of a tile. Texts of
similar length are prepared together; a chunk of pairs at a time is gathered and multiplied.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ascl_plugin.features import ImageFeatures, TextFeatures, wide
from ascl_plugin.fusion.parameters import FusionParameters
from ascl_plugin.fusion.prepared import Prepared, prepare_images, prepare_texts
from ascl_plugin.fusion.reference import EPS
from ascl_plugin.fusion.tile_scores import Attended
from ascl_plugin.fusion.tiling import default_kept, groups

GROUP = 256  # texts prepared together at most
CHUNK = 4 * 2**20  # numbers gathered at once: about what caches hold, on a CPU


class Side(NamedTuple):
    """One side's prepared items, laid out for products of pairs; rows are items, or pairs.

    Args:
        asking: (N, H, d, 2 M) queries, and factors of products toward values; (N, H, d, M) where
            those are the queries.
        keys: (N, H, M, d).
        gram: (N, G, M H/G, M H/G).
        norms, shares: (N, M).
        mask: (N, M), or None.
    """

    asking: Tensor
    keys: Tensor
    gram: Tensor
    norms: Tensor
    shares: Tensor
    mask: Tensor | None

    def take(self, index: Tensor) -> Side:
        """Return the items at `index`."""
        return Side(*(None if x is None else x.index_select(0, index) for x in self))


def local_of_pairs(
    head: FusionParameters,
    images: ImageFeatures,
    texts: TextFeatures,
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    """Return S_local (P,) of image `rows[p]` with text `columns[p]`; see `CrossModalFusion`."""
    asked, rows = rows.unique(return_inverse=True)
    of_images = _side(prepare_images(head, images[asked], False))
    asked, columns = columns.unique(return_inverse=True)
    order, found = [], []
    counts = columns.bincount(minlength=len(asked))
    begins = counts.cumsum(0) - counts
    by_text = columns.argsort(stable=True)
    for chosen, part in groups(texts[asked], GROUP):
        assert isinstance(part, TextFeatures)
        of_texts = _side(prepare_texts(head, part, False))
        own = counts[chosen]
        at = torch.arange(len(chosen), device=own.device).repeat_interleave(own)
        within = torch.arange(len(at), device=own.device) - (own.cumsum(0) - own)[at]
        pairs = by_text[begins[chosen][at] + within]
        sizes = sum(x[0].numel() for x in (*of_images, *of_texts) if x is not None)
        size = max(1, CHUNK // sizes)
        again = torch.is_grad_enabled() and len(rows) * sizes * 8 > default_kept(rows.device)
        score = partial(_chunk, head, of_images, of_texts)
        run = partial(checkpoint, score, use_reentrant=False) if again else score
        chunks = zip(rows[pairs].split(size), at.split(size), strict=True)
        found += [run(i, t) for i, t in chunks]
        order.append(pairs)
    back = torch.cat(order).argsort()
    return torch.cat(found)[back]


def _side(x: Prepared) -> Side:
    asking = x.queries if x.toward is None else torch.cat([x.queries, x.toward], 1)
    return Side(
        wide(asking).permute(0, 2, 3, 1).contiguous(),
        wide(x.keys).transpose(1, 2).contiguous(),
        x.gram, x.norms, x.shares, x.mask,
    )  # fmt: skip


def _chunk(
    head: FusionParameters, images: Side, texts: Side, rows: Tensor, columns: Tensor
) -> Tensor:
    x, y = images.take(rows), texts.take(columns)
    u1 = head.direction_weight
    with torch.autocast(rows.device.type, enabled=False):
        by_region = _attend(head.image_to_text.scale, x, y)
        by_word = _attend(head.text_to_image.scale, y, x, head.pool_words)
        return u1 * by_region + (1 - u1) * by_word


def _attend(
    scale: float, x: Side, y: Side, pool: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Tensor:
    """Return the mean over the places of x of cos(x_i, y*_i), or them as pooled: (P,)."""
    count, places = x.norms.shape
    products = y.keys @ x.asking  # (P, H, N, M or 2 M)
    if products.shape[3] == places:
        products = products.flatten(0, 1).unsqueeze(1)  # heads apart
        logits, toward, mask = products * scale, products, y.mask
        apart = y.gram.shape[1]
        if mask is not None:
            mask = mask.repeat_interleave(apart, 0)
        dots, norms, _ = Attended.apply(logits, toward, y.gram.flatten(0, 1), None, mask)
        dots, norms = (part.view(count, apart, places).sum(1) for part in (dots, norms))
    else:
        logits, toward = products.chunk(2, dim=3)
        dots, norms, _ = Attended.apply(logits, toward, y.gram.squeeze(1), None, y.mask)
    if y.mask is not None:
        dots = dots * y.mask.any(1, keepdim=True)
    squared = norms * x.norms
    cosines = torch.where(squared <= 0, 0, dots * squared.clamp_min(EPS**2).rsqrt())
    return pool(cosines, x.shares) if pool else (cosines * x.shares).sum(-1)
