"""What an image or a text brings to a score with anything, made once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ascl_plugin.features import ImageFeatures, Items, TextFeatures, wide

if TYPE_CHECKING:
    from ascl_plugin.fusion.head import CrossAttention, CrossModalFusion, SliceAttention


@dataclass(frozen=True)
class Prepared(Items):
    """What N items of M places bring to a score with anything, H heads of width d = D/H.

    Args:
        queries: (N, M, H, d) what places ask with; of projected attention, scale included.
        toward: (N, M, H, d) what places hold against the values they attended to, x Zo_h^T; None
            where that is the query.
        keys: (N, M, H, d) what places answer with.
        gram: (N, G, M H/G, M H/G) inner products of the values U, per head where heads are
            orthogonal (G = H), of all heads together otherwise (G = 1).
        values: (N, H M, E) the values, mapped by every linear map that acts on their means; None
            where only local scores are asked for.
        norms: (N, M) squared norms of the places' features.
        shares: (N, M) what a place counts for in a mean over places.
        mask: (N, M), or None when all places are real.
    """

    queries: Tensor
    toward: Tensor | None
    keys: Tensor
    gram: Tensor
    values: Tensor | None
    norms: Tensor
    shares: Tensor
    mask: Tensor | None

    def __len__(self) -> int:
        return len(self.queries)


@dataclass(frozen=True)
class PreparedImages(Prepared):
    """Images, ready to be scored with any prepared texts; `values` are [Xv U, A_1 Xv U].

    Args:
        pooled: (I, D) Xg G; None as `values`.
        gate: (I, D) what the pooled feature adds to the gate's logits, A_2 Xg G + c; None likewise.
    """

    pooled: Tensor | None
    gate: Tensor | None


@dataclass(frozen=True)
class PreparedTexts(Prepared):
    """Texts, ready to be scored with any prepared images; `values` are Xw U."""


def prepare_images(
    head: CrossModalFusion, images: ImageFeatures, with_global: bool = True
) -> PreparedImages:
    """All of a score that depends on images alone; of a local score, unless `with_global`."""
    maps = pooled = gate = None
    if with_global:
        assert images.pooled is not None
        of_values, of_pooled = head.gate.weight.chunk(2, dim=1)
        with torch.autocast(images.regions.device.type, enabled=False):
            x_v = wide(head.image_global.weight)
            maps = torch.cat([x_v, wide(of_values) @ x_v])
            pooled = linear(wide(images.pooled), wide(head.pooled_global.weight))
            gate = linear(pooled, wide(of_pooled), wide(head.gate.bias))
    side = _prepare(head.image_to_text, head.text_to_image, images.regions, images.mask, maps)
    return PreparedImages(**side, pooled=pooled, gate=gate)


def prepare_texts(
    head: CrossModalFusion, texts: TextFeatures, with_global: bool = True
) -> PreparedTexts:
    """All of a score that depends on texts alone; of a local score, unless `with_global`."""
    maps = wide(head.text_global.weight) if with_global else None
    side = _prepare(head.text_to_image, head.image_to_text, texts.words, texts.mask, maps)
    return PreparedTexts(**side)


def _prepare(
    asking: CrossAttention | SliceAttention,
    answering: CrossAttention | SliceAttention,
    x: Tensor,
    mask: Tensor | None,
    maps: Tensor | None,
) -> dict[str, Any]:
    """Fields of `Prepared` for items x (N, M, D); `maps` (E, D) act on means of values."""
    heads, (n, m) = asking.num_heads, x.shape[:2]
    toward: Tensor | None = None
    # no autocast: what is made once an item is made well
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
        return {
            "queries": queries.to(x.dtype),
            "toward": None if toward is None else toward.to(x.dtype),
            "keys": keys.to(x.dtype),
            "gram": gram,
            "values": None if maps is None else _by_head(keys, maps),
            "norms": places.square().sum(-1),
            "shares": real / real.sum(1, keepdim=True).clamp_min(1),
            "mask": mask,
        }


def _by_head(slices: Tensor, weight: Tensor) -> Tensor:
    """Each head's slice (N, M, H, d) through its columns of weight (E, H d): (N, H M, E)."""
    n, m, heads, _ = slices.shape
    columns = weight.view(len(weight), heads, -1)
    return torch.einsum("nmhd,ehd->nhme", slices, columns).reshape(n, heads * m, -1)
