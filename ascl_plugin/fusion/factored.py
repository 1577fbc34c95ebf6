"""Scores of all pairs, tile by tile: texts of a length together, memory bounded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion.parameters import FusionParameters
from ascl_plugin.fusion.prepared import (
    Images,
    PreparedTexts,
    Texts,
    prepare_images,
    prepare_texts,
    whole_of,
)
from ascl_plugin.fusion.tile_scores import Kernels, Parts, score_tile
from ascl_plugin.fusion.tiling import default_kept, default_memory, groups, pair_bytes, tile_shape
from ascl_plugin.threads import side_by_side


def score_parts(
    head: FusionParameters,
    images: Images,
    texts: Texts,
    with_global: bool = True,
    memory: int | None = None,
    scorer: Callable[..., Parts] | None = None,
    kernels: Kernels | None = None,
) -> Parts:
    """Return S_local and S_global (I, T), tile by tile, texts of similar length together.

    Args:
        head: the parameters of the fusion.
        images, texts: features, or the results of `prepare_images` and `prepare_texts`.
        with_global: False skips S_global; S_local is returned in its place.
        memory: bytes that a tile may take, by default `default_memory` of the device; without
            gradients, each CPU thread has a tile. Training keeps what a backward pass needs of all
            tiles if that is less than `default_kept`, and otherwise computes each a second time.
        scorer: the function that scores one tile, by default `score_tile` with `kernels`.
    """
    if isinstance(images, ImageFeatures):
        images = prepare_images(head, images, with_global)
    places, device = images.queries.shape[1], images.queries.device
    longest = (texts.queries if isinstance(texts, PreparedTexts) else texts.words).shape[1]
    memory = memory or default_memory(device)
    attended = with_global and head.attends_globally
    itemsize = images.gram.element_size()
    attending, fusing = pair_bytes(head, places, longest, itemsize, kernels is not None)
    sizes = len(images), len(texts)
    # attention for a part of a tile at a time lives as long as the tile where a gradient is wanted
    recorded = torch.is_grad_enabled() and kernels is None
    per_pair = attending * (recorded or not attended) + fusing * attended
    height, width = tile_shape(memory, per_pair, *sizes)
    part = memory // (2 if kernels else 8)  # kernels keep logits alone
    together = tile_shape(max(1, part), attending, height, width)
    needed = len(images) * len(texts) * per_pair
    again = recorded and needed > default_kept(device)
    rows = images.split(height)
    score = scorer or partial(score_tile, together=together, kernels=kernels)

    def column(part: Texts) -> list[Tensor]:
        text = prepare_texts(head, part, attended) if isinstance(part, TextFeatures) else part
        parts = [
            checkpoint(score, head, image, text, attended, use_reentrant=False)
            if again
            else score(head, image, text, attended)
            for image in rows
        ]
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    columns, texts_of = zip(*groups(texts, width), strict=True)
    threaded = device.type == "cpu" and not recorded and scorer is None and needed > memory
    tiles = side_by_side(column, texts_of) if threaded else map(column, texts_of)
    local, glob = (torch.cat(part, 1) for part in zip(*tiles, strict=True))
    order = torch.cat(columns)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)).to(order))
    local, glob = local[:, back], glob[:, back]
    return local, global_of(head, images, texts, glob) if with_global else local


def global_of(head: FusionParameters, images: Images, texts: Texts, attended: Tensor) -> Tensor:
    """Return S_global (I, T) as `head.global_score` has it, from the papers' if it needs that."""
    if not head.compares_wholes:
        return attended
    with torch.autocast(attended.device.type, enabled=False):
        plain = whole_of(images) @ whole_of(texts).T
    return (attended + plain) / 2 if head.attends_globally else plain
