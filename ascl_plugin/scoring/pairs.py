"""Exact scores of listed pairs only; texts of similar length and content are scored together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, Items, TextFeatures, check_features
from ascl_plugin.interfaces import HasFusion, Scorer
from ascl_plugin.scoring.blocks import PreparedScorer, with_bar

BUCKET = 4  # words; texts are padded to the longest of their bucket


@torch.no_grad()
def score_pairs(
    model: Scorer | HasFusion,
    images: ImageFeatures,
    texts: TextFeatures,
    rows: Tensor,
    columns: Tensor,
    near: Tensor | None = None,
    memory: int = 2**30,
    progress: bool = False,
) -> Tensor:
    """Return the scores (P,), fp32 on the CPU, of image `rows[p]` with text `columns[p]`.

    Texts are prepared once, as many at a time as half of `memory` holds; the images that they are
    paired with pass by. An image is prepared again for every such block of texts, which is much of
    the work unless its texts lie in few blocks: `near` brings them together.

    Args:
        model: a scorer, or a model whose `fusion` is one, see `score_matrix`.
        images, texts: features.
        rows, columns: (P,) int64 on the CPU, in any order.
        near: (T,) ints, such as clusters: texts of similar length and one number go together.
        memory: bytes for everything that is prepared and scored at once.
        progress: show a bar.

    Raises:
        TypeError: no features, or no scorer.
        ValueError: rows and columns of different lengths, or pointing beyond images or texts.
    """
    check_features(images, texts)
    for name, index, count in (("rows", rows, len(images)), ("columns", columns, len(texts))):
        if len(rows) != len(columns):
            raise ValueError(f"{len(rows)} rows for {len(columns)} columns: a pair is one of each")
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < count:
            raise ValueError(f"{name} point beyond the {count} there are")
    rows, columns = rows.cpu(), columns.cpu()
    found = torch.empty(len(rows))
    scorer = PreparedScorer(model, images)
    scored = _scored(scorer, images, texts, rows, columns, near, memory)
    for pairs, scores in with_bar(scored, len(rows)) if progress else scored:
        found[pairs] = scores
    return found


def _scored(
    scorer: PreparedScorer,
    images: ImageFeatures,
    texts: TextFeatures,
    rows: Tensor,
    columns: Tensor,
    near: Tensor | None,
    memory: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (indices of pairs, their scores) until every pair is scored."""
    if not len(rows):
        return
    height = max(1, memory // 16 // scorer.images(images[:1]).nbytes)
    counts = columns.bincount(minlength=len(texts))
    by_text = columns.argsort(stable=True)
    begins = counts.cumsum(0) - counts
    for chosen, part in _text_blocks(scorer, texts, counts > 0, near, memory // 2):
        # the pairs of these texts, sorted by image; `at` is the text's index in the block
        at = torch.arange(len(chosen)).repeat_interleave(counts[chosen])
        spans = zip(begins[chosen].tolist(), counts[chosen].tolist(), strict=True)
        pairs = torch.cat([by_text[begin : begin + count] for begin, count in spans])
        by_image = rows[pairs].argsort(stable=True)
        pairs, at = pairs[by_image], at[by_image]
        done = 0
        for scores in _past(scorer, images, part, rows[pairs], at, height, memory // 32):
            yield pairs[done : done + len(scores)], scores
            done += len(scores)


def _past(
    scorer: PreparedScorer,
    images: ImageFeatures,
    texts: TextFeatures,
    rows: Tensor,
    at: Tensor,
    height: int,
    room: int,
) -> Iterator[Tensor]:
    """Yield scores of images `rows`, which ascend, with texts `at`, a few images at a time."""
    block = _prepared(scorer, texts, max(1, len(texts) // 8))
    width = max(1, room * len(texts) // block.nbytes)
    asked, sizes = rows.unique_consecutive(return_counts=True)
    at = at.to(scorer.device)
    for numbers, counts in zip(asked.split(height), sizes.split(height), strict=True):
        some = scorer.images(images[numbers.to(images.regions.device)])
        own, at = at[: int(counts.sum())], at[int(counts.sum()) :]
        scores = [
            scorer(some[i : i + 1], block[part])[0]
            for i, of_image in enumerate(own.split(counts.tolist()))
            for part in of_image.split(width)
        ]
        yield torch.cat(scores).float().cpu()


def _text_blocks(
    scorer: PreparedScorer, texts: TextFeatures, asked: Tensor, near: Tensor | None, limit: int
) -> Iterator[tuple[Tensor, TextFeatures]]:
    """Yield (indices, those texts padded to one length), as many as `limit` bytes hold prepared."""
    longest = texts.words.shape[1]
    ends = texts.ends.cpu().clamp_min(1)
    tops = ((ends + BUCKET - 1) // BUCKET * BUCKET).clamp_max(longest)
    left = torch.arange(len(texts)) if near is None else near.cpu().argsort(stable=True)
    left = left[asked[left]]
    left = left[tops[left].argsort(stable=True)]
    while len(left):
        count = min(len(left), _fit(scorer, texts, int(tops[left[0]]), limit))
        count = min(count, _fit(scorer, texts, int(tops[left[count - 1]]), limit))
        now, left = left[:count], left[count:]
        yield now, _cut(texts, now.to(texts.words.device), int(ends[now].max()))


def _fit(scorer: PreparedScorer, texts: TextFeatures, length: int, limit: int) -> int:
    """Return the number of texts of a length that `limit` bytes hold."""
    return max(1, limit // scorer.texts(_cut(texts, slice(0, 1), length)).nbytes)


def _cut(texts: TextFeatures, index: Tensor | slice, length: int) -> TextFeatures:
    mask = None if texts.mask is None else texts.mask[index, :length]
    pooled = None if texts.pooled is None else texts.pooled[index]
    return TextFeatures(texts.words[index, :length], mask, pooled)


def _prepared(scorer: PreparedScorer, texts: TextFeatures, step: int) -> Items:
    """Return the texts prepared `step` at a time: preparing takes more than it leaves."""
    whole: Any = None
    for start in range(0, len(texts), step):
        part: Any = scorer.texts(texts[start : start + step])
        there = [f.name for f in fields(part) if getattr(part, f.name) is not None]
        if whole is None:
            shapes = {name: (len(texts), *getattr(part, name).shape[1:]) for name in there}
            whole = replace(part, **{k: getattr(part, k).new_empty(v) for k, v in shapes.items()})
        for name in there:
            getattr(whole, name)[start : start + step] = getattr(part, name)
    return whole
