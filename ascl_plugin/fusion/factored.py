"""Scores of all pairs, tile by tile: texts of a length together, memory bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion.prepared import (
    PreparedImages,
    PreparedTexts,
    prepare_images,
    prepare_texts,
)
from ascl_plugin.fusion.threads import side_by_side
from ascl_plugin.fusion.tile_scores import Parts, score_tile

if TYPE_CHECKING:
    from ascl_plugin.fusion.head import CrossModalFusion


def score_parts(
    head: CrossModalFusion,
    images: ImageFeatures | PreparedImages,
    texts: TextFeatures | PreparedTexts,
    with_global: bool = True,
    memory: int | None = None,
    scorer: Callable[..., Parts] | None = None,
) -> Parts:
    """S_local and S_global (I, T), tile by tile, texts of similar length together.

    Args:
        head: of the fusion.
        images, texts: features, or what `prepare_images` and `prepare_texts` made of them.
        with_global: score globally; else S_global comes back as S_local.
        memory: bytes that a tile may take, `default_memory` of the device unless given; without
            gradients, each CPU thread has a tile. Training keeps what a backward pass needs of all
            tiles if that is less than `default_kept`, and otherwise computes each a second time.
        scorer: of one tile; `score_tile` unless given.
    """
    if isinstance(images, ImageFeatures):
        images = prepare_images(head, images, with_global)
    places, device = images.queries.shape[1], images.queries.device
    longest = (texts.queries if isinstance(texts, PreparedTexts) else texts.words).shape[1]
    memory = memory or default_memory(device)
    attending, fusing = pair_bytes(head, places, longest, images.gram.element_size())
    sizes = len(images), len(texts)
    # attention for a part of a tile at a time lives as long as the tile where a gradient is wanted
    recorded = torch.is_grad_enabled()
    per_pair = attending * (recorded or not with_global) + fusing * with_global
    height, width = tile_shape(memory, per_pair, *sizes)
    together = tile_shape(max(1, memory // 8), attending, height, width)
    needed = len(images) * len(texts) * per_pair
    again = recorded and needed > default_kept(device)
    rows: list[PreparedImages] = images.split(height)
    score = scorer or partial(score_tile, together=together)

    def column(part: TextFeatures | PreparedTexts) -> list[Tensor]:
        text = prepare_texts(head, part, with_global) if isinstance(part, TextFeatures) else part
        parts = [
            checkpoint(score, head, image, text, with_global, use_reentrant=False)
            if again
            else score(head, image, text, with_global)
            for image in rows
        ]
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    columns, texts_of = zip(*groups(texts, width), strict=True)
    threaded = device.type == "cpu" and not recorded and scorer is None and needed > memory
    tiles = side_by_side(column, texts_of) if threaded else map(column, texts_of)
    local, glob = (torch.cat(part, 1) for part in zip(*tiles, strict=True))
    order = torch.cat(columns)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)).to(order))
    return local[:, back], glob[:, back]


def default_memory(device: torch.device) -> int:
    """Bytes for a tile: an eighth of what a GPU has free, on a CPU 64 MiB.

    A CPU attends in parts that its caches serve well, and gives memory of large tensors back to
    the system after each, to ask for it again. Measured by `benchmarks/fusion.py --table tiles`.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 8
    return 64 * 2**20


def default_kept(device: torch.device) -> int:
    """Bytes that tiles may keep for a backward pass: half of a GPU's free memory, or 1 GiB."""
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 2**30


def pair_bytes(head: CrossModalFusion, regions: int, words: int, itemsize: int) -> tuple[int, int]:
    """Bytes that a pair takes at most: to attend, and to fuse what was attended to.

    Four tensors of H K L weights; mean weights and eight vectors of width D.
    """
    weights = head.num_heads * regions * words
    means = head.num_heads * (regions + words)
    return 4 * weights * itemsize, (means + 8 * head.dim) * itemsize


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
    order = texts.ends.argsort(stable=True)
    lengths = texts.ends[order].tolist()
    stops = list(_stops(lengths, size))
    sizes = [stop - start for start, stop in pairwise([0, *stops])]
    # sorted and split at once: the gradient of a part taken out alone is as large as all of them
    columns = (x.split(sizes) for x in (order, texts.words[order], texts.mask[order]))
    parts = zip(*columns, strict=True)
    for stop, (chosen, words, mask) in zip(stops, parts, strict=True):
        longest = max(1, lengths[stop - 1])
        mask = mask[:, :longest]
        yield chosen, TextFeatures(words[:, :longest], None if mask.all() else mask)


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
