"""Images and texts prepared for scoring: everything that depends on one side alone, made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ascl_plugin.features import ImageFeatures, Items, TextFeatures, whole_texts, wide
from ascl_plugin.fusion.parameters import Attention, FusionParameters
from ascl_plugin.fusion.pooled import unit


@dataclass(frozen=True)
class Prepared(Items):
    """N prepared items of M places each, with H heads of width d = D/H.

    Args:
        queries: (N, M, H, d) queries of the places; with projected attention, scaled.
        toward: (N, M, H, d) factors of the products with attended values, x Zo_h^T; None where
            those are the queries.
        keys: (N, M, H, d) keys of the places.
        gram: (N, G, M H/G, M H/G) inner products of the values U, per head where heads are
            orthogonal (G = H), of all heads together otherwise (G = 1).
        values: (N, H M, E) the values, mapped by every linear map that acts on their means; None
            if only local scores are wanted.
        norms: (N, M) squared norms of the places' features.
        shares: (N, M) weights of the places in a mean over places.
        mask: (N, M), or None when all places are real.
        whole: (N, D) pooled features of unit length; None unless they are compared as they are.
    """

    queries: Tensor
    toward: Tensor | None
    keys: Tensor
    gram: Tensor
    values: Tensor | None
    norms: Tensor
    shares: Tensor
    mask: Tensor | None
    whole: Tensor | None

    def __len__(self) -> int:
        return len(self.queries)


@dataclass(frozen=True)
class PreparedImages(Prepared):
    """Images that any prepared texts can be scored with; `values` are [Xv U, A_1 Xv U].

    Args:
        pooled: (I, D) Xg G; None as `values`.
        gate: (I, D) the pooled feature's part of the gate's logits, A_2 Xg G + c; None as `values`.
    """

    pooled: Tensor | None
    gate: Tensor | None


@dataclass(frozen=True)
class PreparedTexts(Prepared):
    """Texts that any prepared images can be scored with; `values` are Xw U."""


Images = ImageFeatures | PreparedImages
Texts = TextFeatures | PreparedTexts


P = TypeVar("P", bound=Prepared)


def prepare_images(
    head: FusionParameters, images: ImageFeatures, with_global: bool = True
) -> PreparedImages:
    """Return everything that scores need of the images; for local scores unless `with_global`."""
    maps = pooled = gate = None
    if with_global and head.attends_globally:
        assert images.pooled is not None
        of_values, of_pooled = head.gate.weight.chunk(2, dim=1)
        with torch.autocast(images.regions.device.type, enabled=False):
            x_v = wide(head.image_global.weight)
            maps = torch.cat([x_v, wide(of_values) @ x_v])
            pooled = linear(wide(images.pooled), wide(head.pooled_global.weight))
            gate = linear(pooled, wide(of_pooled), wide(head.gate.bias))
    whole = whole_of(images) if with_global and head.compares_wholes else None
    make = partial(PreparedImages, pooled=pooled, gate=gate, whole=whole)
    return _prepare(make, head.image_to_text, head.text_to_image, images.regions, images.mask, maps)


def prepare_texts(
    head: FusionParameters, texts: TextFeatures, with_global: bool = True
) -> PreparedTexts:
    """Return everything that scores need of the texts; for local scores unless `with_global`."""
    maps = None
    if with_global and head.attends_globally:
        maps = wide(head.text_global.weight)
    make = partial(
        PreparedTexts, whole=whole_of(texts) if with_global and head.compares_wholes else None
    )
    sides = head.text_to_image, head.image_to_text
    return _prepare(make, *sides, texts.words, texts.mask, maps)


def places_of(items: Images | Texts) -> Tensor:
    """Return the factors (N, M, ...) of the logits."""
    if isinstance(items, Prepared):
        return items.queries
    return items.regions if isinstance(items, ImageFeatures) else items.words


def wants_gradient(head: FusionParameters, images: Images, texts: Texts) -> bool:
    """Return True if a backward pass may follow."""
    inputs = (*head.parameters(), *vars(images).values(), *vars(texts).values())
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)


def whole_of(items: Images | Texts) -> Tensor:
    """Return (N, D) of unit length: pooled features; for texts without any, their mean words."""
    if isinstance(items, Prepared):
        assert items.whole is not None
        return items.whole
    if isinstance(items, TextFeatures):
        return unit(whole_texts(items))
    assert items.pooled is not None
    return unit(items.pooled)


def _prepare(
    make: Callable[..., P],
    asking: Attention,
    answering: Attention,
    x: Tensor,
    mask: Tensor | None,
    maps: Tensor | None,
) -> P:
    """Return `make` of the fields of items x (N, M, D); `maps` (E, D) act on mean values."""
    heads, (n, m) = asking.num_heads, x.shape[:2]
    toward: Tensor | None = None
    # no autocast: what serves many scores is computed in full precision
    with torch.autocast(x.device.type, enabled=False):
        places = wide(x)
        if isinstance(asking.output, nn.Linear) and isinstance(answering.output, nn.Linear):
            zq, zo, zk = map(
                wide, (asking.query.weight, asking.output.weight, answering.key.weight)
            )
            queries = linear(places * asking.scale, zq).view(n, m, heads, -1)
            toward = linear(places, zo.T).view(n, m, heads, -1)
            keys = linear(places, zk).view(n, m, heads, -1)
            u = _by_head(keys, wide(answering.output.weight))
            gram = (u @ u.transpose(1, 2)).unsqueeze(1)
            maps = None if maps is None else maps @ wide(answering.output.weight)
        else:
            queries = keys = places.view(n, m, heads, -1)
            by_head = keys.transpose(1, 2)
            gram = by_head @ by_head.transpose(2, 3)
        real = keys.new_ones(n, m) if mask is None else mask.to(keys.dtype)
        return make(
            queries=queries.to(x.dtype),
            toward=None if toward is None else toward.to(x.dtype),
            keys=keys.to(x.dtype),
            gram=gram,
            values=None if maps is None else _by_head(keys, maps),
            norms=places.square().sum(-1),
            shares=real / real.sum(1, keepdim=True).clamp_min(1),
            mask=mask,
        )


def _by_head(slices: Tensor, weight: Tensor) -> Tensor:
    """Map each head's slice (N, M, H, d) by its columns of weight (E, H d): (N, H M, E)."""
    n, m, heads, _ = slices.shape
    columns = weight.view(len(weight), heads, -1)
    return torch.einsum("nmhd,ehd->nhme", slices, columns).reshape(n, heads * m, -1)
