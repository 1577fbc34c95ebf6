"""Local scores of chosen pairs alone, with gradients: a few thousand of a batch's million.

The factored equations of `tile_scores`, on gathered pairs in place of all pairs of a tile. Texts of
similar length are prepared together; a chunk of pairs at a time is gathered and multiplied, and
once more for the backward pass, so that memory does not grow with the number of pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures, wide
from ascl_plugin.fusion.parameters import FusionParameters
from ascl_plugin.fusion.prepared import Prepared, prepare_images, prepare_texts
from ascl_plugin.fusion.reference import EPS
from ascl_plugin.fusion.tile_scores import Attended
from ascl_plugin.fusion.tiling import groups

GROUP = 256  # texts prepared together at most
CHUNK = 2**20  # numbers gathered at once: about as many as caches hold, on a CPU


class Side(NamedTuple):
    """One side's prepared items, laid out for products of pairs; rows are items, or pairs.

    Args:
        asking: (N, H, d, 2 M) queries, and factors of products toward values; (N, H, d, M) where
            those are the queries.
        keys: (N, H, M, d).
        gram: (N, G, M H/G, M H/G).
        norms: (N, M).
        mask: (N, M), or None.
    """

    asking: Tensor
    keys: Tensor
    gram: Tensor
    norms: Tensor
    mask: Tensor | None

    def take(self, index: Tensor) -> Side:
        """Return the items at `index`."""
        asking, keys, gram, norms = (x.index_select(0, index) for x in self[:4])
        mask = None if self.mask is None else self.mask.index_select(0, index)
        return Side(asking, keys, gram, norms, mask)


def local_of_pairs(
    head: FusionParameters,
    images: ImageFeatures,
    texts: TextFeatures,
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    """Return S_local (P,) of image `rows[p]` with text `columns[p]`; see `CrossModalFusion`."""
    asked, rows = rows.unique(return_inverse=True)
    image = prepare_images(head, images[asked], False)
    asked, columns = columns.unique(return_inverse=True)
    counts = columns.bincount(minlength=len(asked))
    begins = counts.cumsum(0) - counts
    by_text = columns.argsort(stable=True)
    u1, scales = head.direction_weight, (head.image_to_text.scale, head.text_to_image.scale)
    order, found = [], []
    of_images = _side(image)
    for chosen, part in groups(texts[asked], GROUP):
        assert isinstance(part, TextFeatures)
        text = prepare_texts(head, part, False)
        own = counts[chosen]  # pairs of each text of the group
        at = torch.arange(len(chosen), device=own.device).repeat_interleave(own)
        within = torch.arange(len(at), device=own.device) - (own.cumsum(0) - own)[at]
        pairs = by_text[begins[chosen][at] + within]
        of_texts = _side(text)
        by_region, by_word = _Cosines.apply(scales, rows[pairs], at, *of_images, *of_texts)
        by_word = head.pool_words(by_word, text.shares[at])
        by_region = (by_region * image.shares[rows[pairs]]).sum(-1)
        found.append(u1 * by_region + (1 - u1) * by_word)
        order.append(pairs)
    return torch.cat(found)[torch.cat(order).argsort()]


def _side(x: Prepared) -> Side:
    asking = x.queries if x.toward is None else torch.cat([x.queries, x.toward], 1)
    asking, keys = wide(asking).permute(0, 2, 3, 1), wide(x.keys).transpose(1, 2)
    return Side(asking.contiguous(), keys.contiguous(), x.gram, x.norms, x.mask)


class _Cosines(torch.autograd.Function):
    """The cosines of regions (P, K) and of words (P, L) with what they attend to, in chunks.

    In: scales of the logits (regions, words), the pairs' images and texts (P,), the fields of both
    sides. The backward pass gathers and attends to each chunk again: the graph of a gather would
    hold, for each chunk, a gradient as large as all items.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, scales: tuple[float, float], rows: Tensor, columns: Tensor, *fields: Tensor
    ) -> tuple[Tensor, ...]:
        """Return both cosines."""
        images, texts = Side(*fields[:5]), Side(*fields[5:])
        ctx.save_for_backward(rows, columns, *fields)
        ctx.scales = scales
        ctx.size = max(1, CHUNK // sum(x[0].numel() for x in fields if x is not None))
        found = [
            _cosines(scales, images.take(i), texts.take(t))
            for i, t in zip(rows.split(ctx.size), columns.split(ctx.size), strict=True)
        ]
        return tuple(torch.cat(part) for part in zip(*found, strict=True))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients of the fields."""
        rows, columns, *fields = ctx.saved_tensors
        images, texts = Side(*fields[:5]), Side(*fields[5:])
        needed = [k for k, wanted in enumerate(ctx.needs_input_grad[3:]) if wanted]
        totals = {k: torch.zeros_like(fields[k]) for k in needed}
        parts = (x.split(ctx.size) for x in (rows, columns, *gradients))
        for i, t, *upstream in zip(*parts, strict=True):
            image, text = images.take(i), texts.take(t)
            leaves = {k: (*image, *text)[k].requires_grad_() for k in needed}  # type: ignore[union-attr]
            with torch.enable_grad():
                out = _cosines(ctx.scales, image, text)
            given = torch.autograd.grad(out, list(leaves.values()), upstream)
            for k, gradient in zip(needed, given, strict=True):
                totals[k].index_add_(0, i if k < len(image) else t, gradient)
        found = [totals.get(k) for k in range(len(fields))]
        return None, None, None, *found


def _cosines(scales: tuple[float, float], x: Side, y: Side) -> tuple[Tensor, Tensor]:
    with torch.autocast(x.keys.device.type, enabled=False):
        return _attend(scales[0], x, y), _attend(scales[1], y, x)


def _attend(scale: float, x: Side, y: Side) -> Tensor:
    """Return cos(x_i, y*_i) (P, M) of the places of x."""
    count, places = x.norms.shape
    apart = y.gram.shape[1]
    products = y.keys @ x.asking  # (P, H, N, M or 2 M)
    if products.shape[3] == places:
        products = products.flatten(0, 1).unsqueeze(1)  # heads apart
        logits, toward = products * scale, products
    else:
        logits, toward = products.chunk(2, dim=3)
    mask = y.mask
    if mask is not None and apart > 1:
        mask = mask.repeat_interleave(apart, 0)
    dots, norms, _ = Attended.apply(logits, toward, y.gram.flatten(0, 1), None, mask)
    dots, norms = (part.view(count, apart, places).sum(1) for part in (dots, norms))
    if y.mask is not None:
        dots = dots * y.mask.any(1, keepdim=True)
    squared = norms * x.norms
    return torch.where(squared <= 0, 0, dots * squared.clamp_min(EPS**2).rsqrt())
