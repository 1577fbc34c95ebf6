"""Exact scores of listed pairs alone, texts of similar length and content together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, Items, TextFeatures
from ascl_plugin.scoring.blocks import Sides, device_of, with_bar

BUCKET = 4  # words; texts are padded to the longest of their bucket


@torch.no_grad()
def score_pairs(
    model: Any,
    images: ImageFeatures,
    texts: TextFeatures,
    rows: Tensor,
    columns: Tensor,
    near: Tensor | None = None,
    memory: int = 2**30,
    progress: bool = False,
) -> Tensor:
    """Scores (P,) fp32 on the CPU of image `rows[p]` with text `columns[p]`.

    Texts are prepared once, as many at a time as half of `memory` holds; past them go the images
    that have a pair among them. An image is prepared again for every such block, which is much of
    the work unless its texts lie in few of them: `near` brings together what belongs together.

    Args:
        model: a scorer, or a model whose `fusion` is one, as of `score_matrix`.
        images, texts: features.
        rows, columns: (P,) int64 on the CPU, in any order.
        near: (T,) ints, such as clusters: texts of similar length and one number go together.
        memory: bytes for what is prepared and scored at once.
        progress: show a bar.

    Raises:
        ValueError: rows and columns of different lengths, or pointing beyond images or texts.
    """
    for name, index, count in (("rows", rows, len(images)), ("columns", columns, len(texts))):
        if len(rows) != len(columns):
            raise ValueError(f"{len(rows)} rows for {len(columns)} columns: a pair is one of each")
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < count:
            raise ValueError(f"{name} point beyond the {count} there are")
    scorer: Any = getattr(model, "fusion", model)
    found = torch.empty(len(rows))
    scored = _scored(scorer, images, texts, rows, columns, near, memory)
    for pairs, scores in with_bar(scored, len(rows)) if progress else scored:
        found[pairs] = scores
    return found


def _scored(
    scorer: Any,
    images: ImageFeatures,
    texts: TextFeatures,
    rows: Tensor,
    columns: Tensor,
    near: Tensor | None,
    memory: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(which pairs, their scores) until all are."""
    if not len(rows):
        return
    sides = Sides(scorer, device_of(scorer, images))
    height = max(1, memory // 16 // sides.images(images[:1]).nbytes)
    counts = columns.bincount(minlength=len(texts))
    by_text = columns.argsort(stable=True)
    begins = counts.cumsum(0) - counts
    for places, part in _text_blocks(sides, texts, counts > 0, near, memory // 2):
        # the pairs of these texts, those of an image together; `at` is the text's place in part
        at = torch.arange(len(places)).repeat_interleave(counts[places])
        spans = zip(begins[places].tolist(), counts[places].tolist(), strict=True)
        pairs = torch.cat([by_text[begin : begin + count] for begin, count in spans])
        by_image = rows[pairs].argsort(stable=True)
        pairs, at = pairs[by_image], at[by_image]
        done = 0
        for scores in _past(sides, images, part, rows[pairs], at, height, memory // 32):
            yield pairs[done : done + len(scores)], scores
            done += len(scores)


def _past(
    sides: Sides,
    images: ImageFeatures,
    texts: TextFeatures,
    rows: Tensor,
    at: Tensor,
    height: int,
    room: int,
) -> Iterator[Tensor]:
    """Scores of images `rows`, sorted, with texts `at`, a few images at a time."""
    block = _ready(sides, texts, max(1, len(texts) // 8))
    width = max(1, room * len(texts) // block.nbytes)
    asked, sizes = rows.unique_consecutive(return_counts=True)
    at = at.to(sides.device)
    for numbers, shares in zip(asked.split(height), sizes.split(height), strict=True):
        some = sides.images(images[numbers.to(images.regions.device)])
        own, at = at[: int(shares.sum())], at[int(shares.sum()) :]
        scores = [
            sides.scorer(some[i : i + 1], block[part])[0]
            for i, of_image in enumerate(own.split(shares.tolist()))
            for part in of_image.split(width)
        ]
        yield torch.cat(scores).float().cpu()


def _text_blocks(
    sides: Sides, texts: TextFeatures, asked: Tensor, near: Tensor | None, limit: int
) -> Iterator[tuple[Tensor, TextFeatures]]:
    """(places, texts there, padded to one length), as many as take `limit` bytes when ready."""
    longest = texts.words.shape[1]
    ends = texts.ends.cpu().clamp_min(1)
    tops = ((ends + BUCKET - 1) // BUCKET * BUCKET).clamp_max(longest)
    places = torch.arange(len(texts)) if near is None else near.cpu().argsort(stable=True)
    places = places[asked[places]]
    places = places[tops[places].argsort(stable=True)]
    while len(places):
        count = min(len(places), _fit(sides, texts, int(tops[places[0]]), limit))
        count = min(count, _fit(sides, texts, int(tops[places[count - 1]]), limit))
        now, places = places[:count], places[count:]
        chosen = now.to(texts.words.device)
        length = int(ends[now].max())
        mask = None if texts.mask is None else texts.mask[chosen, :length]
        yield now, TextFeatures(texts.words[chosen, :length], mask)


def _fit(sides: Sides, texts: TextFeatures, length: int, limit: int) -> int:
    """How many texts of a length `limit` bytes hold."""
    mask = None if texts.mask is None else texts.mask[:1, :length]
    return max(1, limit // sides.texts(TextFeatures(texts.words[:1, :length], mask)).nbytes)


def _ready(sides: Sides, texts: TextFeatures, step: int) -> Items:
    """Texts made ready `step` at a time: what is needed on the way is needed for a few."""
    whole: Any = None
    for start in range(0, len(texts), step):
        part: Any = sides.texts(texts[start : start + step])
        there = [f.name for f in fields(part) if getattr(part, f.name) is not None]
        if whole is None:
            shapes = {name: (len(texts), *getattr(part, name).shape[1:]) for name in there}
            whole = replace(part, **{k: getattr(part, k).new_empty(v) for k, v in shapes.items()})
        for name in there:
            getattr(whole, name)[start : start + step] = getattr(part, name)
    return whole
