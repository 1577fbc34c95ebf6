"""Late interaction: each word finds its best region, and back. A cheap teacher of alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from ascl_plugin.features import ImageFeatures, TextFeatures, check_features, wide
from ascl_plugin.fusion.parameters import check_weights
from ascl_plugin.fusion.pooled import PooledSimilarity, unit
from ascl_plugin.fusion.tiling import default_memory
from ascl_plugin.fusion.word_pooling import WordPooling

Best = tuple[Tensor | None, Tensor | None]


class LateInteraction(nn.Module):
    """The local score of `CrossModalFusion` with a maximum in place of attention, and a global one.

    S_local  = u1 mean_i max_j cos(v_i, w_j) + (1 - u1) mean_j max_i cos(w_j, v_i)
    S_global = cos(G, G_w)    G_w: the text's pooled feature, or mean_j w_j without one
    S        = u2 S_local + (1 - u2) S_global

    There are no parameters (but with "mean_softmin"), and one matrix product scores a block of
    pairs, at a small part of the cost of cross-modal attention. Encoders learn from scratch with it
    in far fewer seconds; attention that starts as a similarity in the joint space, as
    `CrossModalFusion` does, continues from there. With u1 = 0 it is ColBERT's score (Khattab and
    Zaharia, 2020), with u1 = 1/2 that of
    FILIP (Yao et al., 2022) with its two directions added.

    Args:
        local_weight: u2, the weight of the local against the global score, in [0, 1]; at 1 images
            need no pooled feature.
        direction_weight: u1, the weight of region-to-text against word-to-image, in [0, 1].
        word_pooling, softmin_temperature: see `WordPooling`, in the place of mean_j.

    Shapes:
        images.regions (I, K, D), images.pooled (I, D), texts.words (T, L, D) -> (I, T), fp32 or
        wider.
    """

    global_score = "plain"  # in the words of `CrossModalFusion`

    def __init__(
        self,
        local_weight: float = 1.0,
        direction_weight: float = 0.0,
        word_pooling: str = "mean",
        softmin_temperature: float = 0.1,
    ) -> None:
        super().__init__()
        check_weights(local_weight=local_weight, direction_weight=direction_weight)
        self.local_weight = local_weight
        self.direction_weight = direction_weight
        self.pool_words = WordPooling(word_pooling, softmin_temperature)

    def forward(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Return the scores of all pairs."""
        local, u2 = self.local_scores(images, texts), self.u2
        return local if u2 == 1 else u2 * local + (1 - u2) * self.plain_scores(images, texts)

    if TYPE_CHECKING:
        __call__ = forward  # torch's own returns Any

    @property
    def u2(self) -> float:
        """The weight of the local score."""
        return self.local_weight

    def plain_scores(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Return S_global (I, T) of all pairs."""
        return PooledSimilarity("pooled")(images, texts)

    def local_scores(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Return S_local (I, T) of all pairs."""
        check_features(images, texts)
        v, w = unit(images.regions).to(images.regions), unit(texts.words).to(texts.words)
        u1, local = self.direction_weight, torch.zeros((), device=v.device)
        if u1 == 0 and texts.mask is not None:
            by_word = _of_real_words(v, w, images.mask, texts.mask)
        else:
            by_word, by_region = _Highest.apply(v, w, images.mask, texts.mask, u1 < 1, u1 > 0)
        if u1 < 1:
            if images.mask is not None:  # the best of no real region is 0
                by_word = by_word.masked_fill(~images.mask.any(1)[:, None, None], 0)
            shares = _shares(texts.words, texts.mask)
            local = (1 - u1) * self.pool_words(wide(by_word), shares)
        if u1 > 0:
            if texts.mask is not None:
                by_region = by_region.masked_fill(~texts.mask.any(1), 0)
            shares = _shares(images.regions, images.mask)[..., None]
            local = local + u1 * (wide(by_region) * shares).sum(1)
        return local

    def score_pairs_local(
        self, images: ImageFeatures, texts: TextFeatures, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """Return S_local (P,) of image `rows[p]` with text `columns[p]`, with gradients."""
        check_features(images, texts)
        v, w, u1 = unit(images.regions), unit(texts.words), self.direction_weight
        of_places = _shares(images.regions, images.mask), _shares(texts.words, texts.mask)
        found = []
        size = max(1, _memory(v.device) // max(1, 4 * (v[:1].numel() + w[:1].numel())))
        for i, t in zip(rows.split(size), columns.split(size), strict=True):
            real_regions, real_words = (x > 0 for x in (of_places[0][i], of_places[1][t]))
            products = torch.einsum("pkd,pld->pkl", v[i], w[t])
            lowest = torch.finfo(products.dtype).min
            by_word = products.masked_fill(~real_regions[:, :, None], lowest).amax(1)
            by_word = by_word * real_regions.any(1, keepdim=True)  # the best of none is 0
            by_region = products.masked_fill(~real_words[:, None], lowest).amax(2)
            by_region = by_region * real_words.any(1, keepdim=True)
            by_region = (by_region * of_places[0][i]).sum(1)
            found.append(u1 * by_region + (1 - u1) * self.pool_words(by_word, of_places[1][t]))
        return torch.cat(found)


def _of_real_words(v: Tensor, w: Tensor, real_regions: Tensor | None, real_words: Tensor) -> Tensor:
    """Return the highest product (I, T, L) of each real word; padding gets 0 and costs nothing."""
    real = real_words.flatten().nonzero()[:, 0]
    best, _ = _Highest.apply(v, w.flatten(0, 1)[real, None], real_regions, None, True, False)
    found = best.new_zeros(len(v), real_words.numel()).index_copy(1, real, best.squeeze(2))
    return found.unflatten(1, real_words.shape)


class _Highest(torch.autograd.Function):
    """The highest product of each word with regions of each image, and of each region with words.

    In: regions (I, K, D), words (T, L, D), their masks or None, and a flag for each output. Out:
    maxima over real regions (I, T, L) and over real words (I, K, T), None where not wanted. The
    backward pass is written by hand because a maximum passes its gradient to one product of many:
    sums of the highest rows replace products with matrices of mostly zeros. One product of a tie
    gets the gradient.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        v: Tensor,
        w: Tensor,
        real_regions: Tensor | None,
        real_words: Tensor | None,
        of_words: bool,
        of_regions: bool,
    ) -> Best:
        recorded = any(ctx.needs_input_grad[:2])
        per_image = v.shape[1] * w.shape[:2].numel() * v.element_size()
        size = max(1, _memory(v.device) // max(1, per_image))
        parts = []
        for start in range(0, max(1, len(v)), size):
            part = v[start : start + size]
            real = None if real_regions is None else real_regions[start : start + size]
            products = part.flatten(0, 1) @ w.flatten(0, 1).T
            products = products.view(*part.shape[:2], *w.shape[:2])
            none: Best = (None, None)
            by_word = _highest(products, real, 1, recorded) if of_words else none
            by_region = _highest(products, real_words, 3, recorded) if of_regions else none
            parts.append((*by_word, *by_region))
        best_regions, region, best_words, word = (
            None if of_all[0] is None else torch.cat(of_all) for of_all in zip(*parts, strict=True)
        )
        ctx.save_for_backward(v, w, region, word)
        return best_regions, best_words

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, d_by_word: Tensor, d_by_region: Tensor
    ) -> tuple[Tensor | None, ...]:
        v, w, region, word = ctx.saved_tensors
        regions, words = wide(v.flatten(0, 1)), wide(w.flatten(0, 1))
        d_v, d_w = torch.zeros_like(regions), torch.zeros_like(words)
        if region is not None:  # (I, T, L), a place in the image; (T L, I), a row of all regions
            first = torch.arange(0, len(regions), v.shape[1], device=v.device)
            row = region.flatten(1).T + first.int()
            to_words, to_regions = _passed(words, regions, row, d_by_word.flatten(1).T)
            d_v, d_w = d_v + to_regions, d_w + to_words
        if word is not None:  # (I, K, T), a place in the text; (I K, T), a row of all words
            first = torch.arange(0, len(words), w.shape[1], device=w.device)
            row = word.flatten(0, 1) + first.int()
            to_regions, to_words = _passed(regions, words, row, d_by_region.flatten(0, 1))
            d_v, d_w = d_v + to_regions, d_w + to_words
        return d_v.view_as(v).to(v), d_w.view_as(w).to(w), None, None, None, None


def _highest(products: Tensor, real: Tensor | None, axis: int, recorded: bool) -> Best:
    """Return the maximum over an axis where `real`, and if `recorded` its place."""
    if real is not None:
        real = real[:, :, None, None] if axis == 1 else real
        products = products.masked_fill(~real, torch.finfo(products.dtype).min)
    best = products.amax(axis)
    if not recorded:
        return best, None
    # on a CPU twice as fast as `max`, which returns both
    places = torch.arange(products.shape[axis], dtype=torch.int32, device=products.device)
    places = places.view(-1, *[1] * (products.ndim - 1 - axis))
    return best, ((products == best.unsqueeze(axis)) * places).amax(axis)


def _passed(x: Tensor, y: Tensor, row: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradients of x (A, D) and y (B, D): x[a] met y[row[a, c]] with weights[a, c]."""
    row, weights = row.contiguous(), wide(weights).contiguous()
    d_x = embedding_bag(row, y, mode="sum", per_sample_weights=weights)
    order = row.flatten().argsort(stable=True)
    sizes = row.flatten().bincount(minlength=len(y))
    d_y = embedding_bag(
        order // row.shape[1], x, sizes.cumsum(0) - sizes, mode="sum",
        per_sample_weights=weights.flatten()[order],
    )  # fmt: skip
    return d_x, d_y


def _memory(device: torch.device) -> int:
    """Return the bytes of products at once: on a CPU few enough for its cache."""
    return default_memory(device) if device.type == "cuda" else 2**20


def _shares(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the weights (N, places) of real places in the mean over them."""
    real = wide(values.new_ones(values.shape[:2]))
    real = real if mask is None else real * mask
    return real / real.sum(1, keepdim=True).clamp_min(1)
