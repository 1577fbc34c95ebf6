"""The same scores for whole blocks of pairs at once, and W*, V* of a pair never written out.

A score needs of an attended vector w*_i = sum_hj a_hij U_hj, with U_hj = (y_j Zk_h) Zo_h, only

    x_i . w*_i   = sum_hj a_hij (x_i Zo_h^T) . (y_j Zk_h)     a second matrix of logits
    |w*_i|^2     = a_i^T (U U^T) a_i                          a Gram matrix made once an item
    mean_i w*_i  = mean_i(a_i) U                          and Xw, Xv, the gate act on U

so what lives per pair are attention weights, H K L of them, and not K D. Without projections the
second matrix is the first one, the Gram matrix falls apart into one a head, and one matrix product
serves both directions. What belongs to one side is made once (`prepare_images`, `prepare_texts`);
pairs are scored in tiles, texts of a length together, and nothing loops over single pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from ascl_plugin.features import ImageFeatures, Items, TextFeatures, wide
from ascl_plugin.fusion.reference import EPS, cosine

if TYPE_CHECKING:
    from ascl_plugin.fusion.head import CrossAttention, CrossModalFusion, SliceAttention

Parts = tuple[Tensor, Tensor]


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
    head: CrossModalFusion, images: ImageFeatures, whole: bool = True
) -> PreparedImages:
    """All of a score that depends on images alone; of a local score, unless `whole`."""
    maps = pooled = gate = None
    if whole:
        assert images.pooled is not None
        of_values, of_pooled = head.gate.weight.chunk(2, dim=1)
        with torch.autocast(images.regions.device.type, enabled=False):
            x_v = wide(head.image_global.weight)
            maps = torch.cat([x_v, wide(of_values) @ x_v])
            pooled = linear(wide(images.pooled), wide(head.pooled_global.weight))
            gate = linear(pooled, wide(of_pooled), wide(head.gate.bias))
    side = _prepare(head.image_to_text, head.text_to_image, images.regions, images.mask, maps)
    return PreparedImages(**side, pooled=pooled, gate=gate)


def prepare_texts(head: CrossModalFusion, texts: TextFeatures, whole: bool = True) -> PreparedTexts:
    """All of a score that depends on texts alone; of a local score, unless `whole`."""
    maps = wide(head.text_global.weight) if whole else None
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
    if isinstance(asking.output, nn.Linear) and isinstance(answering.output, nn.Linear):
        queries = asking.query(x * asking.scale).view(n, m, heads, -1)
        toward = linear(x, asking.output.weight.T).view(n, m, heads, -1)
        keys = answering.key(x).view(n, m, heads, -1)
    else:
        queries = keys = x.view(n, m, heads, -1)
    # no autocast from here on: what is made once an item is made well
    with torch.autocast(x.device.type, enabled=False):
        slices = wide(keys)
        if isinstance(answering.output, nn.Linear):
            u = _by_head(slices, wide(answering.output.weight))
            gram = (u @ u.transpose(1, 2)).unsqueeze(1)
            maps = None if maps is None else maps @ wide(answering.output.weight)
        else:
            by_head = slices.transpose(1, 2)
            gram = by_head @ by_head.transpose(2, 3)
        real = slices.new_ones(n, m) if mask is None else mask.to(slices.dtype)
        return {
            "queries": queries,
            "toward": toward,
            "keys": keys,
            "gram": gram,
            "values": None if maps is None else _by_head(slices, maps),
            "norms": wide(x).square().sum(-1),
            "shares": real / real.sum(1, keepdim=True).clamp_min(1),
            "mask": mask,
        }


def _by_head(slices: Tensor, weight: Tensor) -> Tensor:
    """Each head's slice (N, M, H, d) through its columns of weight (E, H d): (N, H M, E)."""
    n, m, heads, _ = slices.shape
    columns = weight.view(len(weight), heads, -1)
    return torch.einsum("nmhd,ehd->nhme", slices, columns).reshape(n, heads * m, -1)


def score_parts(
    head: CrossModalFusion,
    images: ImageFeatures | PreparedImages,
    texts: TextFeatures | PreparedTexts,
    whole: bool = True,
    memory: int | None = None,
    scorer: Callable[..., Parts] | None = None,
) -> Parts:
    """S_local and S_global (I, T), tile by tile, texts of similar length together.

    Args:
        head: of the fusion.
        images, texts: features, or what `prepare_images` and `prepare_texts` made of them.
        whole: score globally; else S_global comes back as S_local.
        memory: bytes that a tile may take, `default_memory` of the device unless given. Training
            keeps what a backward pass needs of all tiles if that fits, and otherwise computes
            tiles a second time.
        scorer: of one tile; `score_tile` unless given.
    """
    scorer = scorer or score_tile
    if isinstance(images, ImageFeatures):
        images = prepare_images(head, images, whole)
    places = images.queries.shape[1]
    memory = memory or default_memory(images.queries.device)
    longest = (texts.queries if isinstance(texts, PreparedTexts) else texts.words).shape[1]
    per_pair = pair_bytes(head, places, longest, images.gram.element_size())
    height, width = tile_shape(memory, per_pair, len(images), len(texts))
    again = torch.is_grad_enabled() and len(images) * len(texts) * per_pair > KEPT * memory

    columns, tiles = [], []
    rows: list[PreparedImages] = images.split(height)
    for chosen, part in groups(texts, width):
        text = prepare_texts(head, part, whole) if isinstance(part, TextFeatures) else part
        parts = [
            checkpoint(scorer, head, image, text, whole, use_reentrant=False)
            if again
            else scorer(head, image, text, whole)
            for image in rows
        ]
        columns.append(chosen)
        tiles.append([torch.cat(part) for part in zip(*parts, strict=True)])
    local, glob = (torch.cat(part, 1) for part in zip(*tiles, strict=True))
    order = torch.cat(columns)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)).to(order))
    return local[:, back], glob[:, back]


KEPT = 256  # tiles' worth of memory that training may keep for its backward pass


def default_memory(device: torch.device) -> int:
    """Bytes for a tile: on a CPU few, on a GPU an eighth of the free.

    A CPU's caches serve small tiles well, and memory of large ones goes back to the system after
    each, to be asked for again.

    Measured by `benchmarks/fusion.py --tiles`.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 8
    return 8 * 2**20


def pair_bytes(head: CrossModalFusion, regions: int, words: int, itemsize: int) -> int:
    """Bytes that scoring a pair takes at most: four tensors of weights, eight of width D."""
    return (4 * head.num_heads * regions * words + 8 * head.dim) * itemsize


def tile_shape(memory: int, per_pair: int, images: int, texts: int) -> tuple[int, int]:
    """Images and texts of a tile of at most `memory` bytes, four texts to an image if there are."""
    pairs = max(1, memory // per_pair)
    height = min(images, max(1, math.isqrt(pairs // 4)))
    width = min(texts, max(1, pairs // max(1, height)))
    return max(1, min(images, pairs // max(1, width))), max(1, width)


def groups(
    texts: TextFeatures | PreparedTexts, size: int
) -> Iterator[tuple[Tensor, TextFeatures | PreparedTexts]]:
    """(places, texts at those places), at most `size` at a time, padding cut.

    Short texts come first. Texts of one length make groups of their own, which need no mask, unless
    they are so few that a group would be small.
    """
    if isinstance(texts, PreparedTexts) or texts.mask is None:
        device = (texts.queries if isinstance(texts, PreparedTexts) else texts.words).device
        parts: Any = texts.split(size)
        yield from zip(torch.arange(len(texts), device=device).split(size), parts, strict=True)
        return
    # the place of the last real word: padding may stand anywhere, only a padded tail is cut
    ends = (texts.mask * torch.arange(1, texts.mask.shape[1] + 1).to(texts.mask.device)).amax(1)
    order = ends.argsort(stable=True)
    start = 0
    for stop in _stops(ends[order].tolist(), size):
        chosen = order[start:stop]
        mask = texts.mask[chosen, : max(1, int(ends[chosen[-1]]))]
        words = texts.words[chosen, : mask.shape[1]]
        yield chosen, TextFeatures(words, None if mask.all() else mask)
        start = stop


def _stops(lengths: list[int], size: int) -> Iterator[int]:
    """Where groups of sorted lengths end: runs of one length in even parts, small runs together."""
    runs = [len(list(run)) for _, run in groupby(lengths)]
    stop = together = 0
    for run in runs:
        if together and (run * 4 >= size or together + run > size):
            yield stop
            together = 0
        if run * 4 >= size:
            parts = -(-run // size)
            yield from (stop + (i + 1) * run // parts for i in range(parts))
        else:
            together += run
        stop += run
    if together:
        yield stop


def score_tile(
    head: CrossModalFusion, images: PreparedImages, texts: PreparedTexts, whole: bool = True
) -> Parts:
    """S_local and S_global (I, T) of all pairs at once; memory grows with I T H K L."""
    if images.toward is not None:
        by_region, over_words = _attend(*_logits(images, texts), images, texts)
        by_word, over_regions = _attend(*_logits(texts, images), texts, images)
    else:
        # (H, T, L, I, K): every product of a word and a region, for both directions
        products = _products(texts.keys, images.queries)
        by_region, over_words = _attend(
            *_scaled(products.flatten(3), head.image_to_text.scale), images, texts
        )
        products = products.permute(0, 3, 4, 1, 2).flatten(3)
        by_word, over_regions = _attend(*_scaled(products, head.text_to_image.scale), texts, images)
    u1 = head.direction_weight
    local = u1 * by_region + (1 - u1) * by_word.T
    if not whole:
        return local, local
    return local, whole_score(over_words, over_regions, images, texts)


def whole_score(
    over_words: Tensor, over_regions: Tensor, images: PreparedImages, texts: PreparedTexts
) -> Tensor:
    """S_global (I, T) from mean attention over words (T, I, H L) and over regions (I, T, H K)."""
    assert images.values is not None and texts.values is not None
    assert images.pooled is not None and images.gate is not None
    with torch.autocast(over_words.device.type, enabled=False):
        w_g = (over_words @ texts.values).transpose(0, 1)  # (I, T, D)
        v_1, logits = (over_regions @ images.values).chunk(2, dim=-1)
        z = torch.sigmoid(logits + images.gate[:, None])
        return cosine(torch.lerp(images.pooled[:, None].expand_as(z), v_1, z), w_g)


def _products(keys: Tensor, queries: Tensor) -> Tensor:
    """Keys (B, N, H, d) times queries (A, M, H, d): (H, B, N, A, M), fp32 or wider."""
    (b, n), (a, m) = keys.shape[:2], queries.shape[:2]
    products = keys.flatten(0, 1).transpose(0, 1) @ queries.flatten(0, 1).permute(1, 2, 0)
    return wide(products).view(-1, b, n, a, m)


def _logits(x: Prepared, y: Prepared) -> tuple[Tensor, Tensor]:
    """Logits of projected attention, and products toward the values: (B, H, N, A M) each."""
    assert x.toward is not None
    logits, toward = (_products(y.keys, q) for q in (x.queries, x.toward))
    return logits.transpose(0, 1).flatten(3), toward.transpose(0, 1).flatten(3)


def _scaled(products: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The same of parameter-free attention, from (H, B, N, A M): (H B, 1, N, A M) each."""
    products = products.flatten(0, 1).unsqueeze(1)
    return products * scale, products


def _attend(logits: Tensor, toward: Tensor, x: Prepared, y: Prepared) -> Parts:
    """Every item of x (A of M places) attends to every item of y (B of N places), as y* a place.

    Returns:
        mean_i cos(x_i, y*_i) (A, B) over the real places of x; their mean attention (B, A, H N).
        Masked keys get no weight; an item of y with every key masked has y* = 0.
    """
    b, heads, n = len(y), *y.keys.shape[2:0:-1]
    a, m = x.shares.shape
    # heads that share no Gram matrix are items of their own, summed in the end
    apart = y.gram.shape[1]
    gram, mask = y.gram.transpose(0, 1).flatten(0, 1), y.mask
    if mask is not None and apart > 1:
        mask = mask.repeat(apart, 1)
    with torch.autocast(logits.device.type, enabled=False):
        dots, norms, means = _Attended.apply(logits, toward, gram, x.shares, mask)
        if apart > 1:
            dots, norms = (part.view(apart, b, a * m).sum(0) for part in (dots, norms))
            means = means.view(apart, b, a, n).permute(1, 2, 0, 3).reshape(b, a, heads * n)
        if y.mask is not None:  # an item without keys is attended to as zeros
            there = y.mask.any(1, keepdim=True)
            dots, means = dots * there, means * there[..., None]
        lengths = norms.clamp_min(0) * x.norms.view(a * m)
        cosines = dots / lengths.clamp_min(EPS**2).sqrt()
        return (cosines.view(b, a, m) * x.shares).sum(-1).T, means


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


def softmax(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax of (B, H, N, Q) over N where `mask` (B, N) is True; of no use where nothing is."""
    if mask is None:
        return torch.softmax(logits, dim=2)
    lowest = torch.finfo(logits.dtype).min
    return torch.softmax(logits.masked_fill(~mask[:, None, :, None], lowest), dim=2)
