"""Scores of all pairs, block by block, within a memory budget.

Texts are sorted by length and cut into pieces of similar length. As many pieces as half the budget
holds are prepared once; the images then pass by, a few at a time, each prepared once per such round
of texts, or once in all if a quarter of the budget holds them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ascl_plugin.features import ImageFeatures, Items, TextFeatures
from ascl_plugin.fusion.tiling import default_memory, groups, tile_shape
from ascl_plugin.interfaces import HasFusion, PreparingScorer, Scorer

Wanted = Callable[[slice, Tensor], bool]
Block = tuple[slice, Tensor, Tensor]  # rows of images, indices of texts, scores
Scored = TypeVar("Scored", bound=tuple)
Piece = tuple[Tensor, Items]  # indices of texts, and those texts prepared

MIN_PIECES = 32  # in one piece, texts of all lengths would be padded to the longest
CPU = torch.device("cpu")


class PreparedScorer:
    """A scorer that takes prepared items where it can prepare them, features otherwise.

    Args:
        model: a scorer, or a model whose `fusion` is one.
        images: features; a scorer without weights computes where they are.

    Raises:
        TypeError: `model` is neither, or cannot score a block of a gallery.
    """

    def __init__(self, model: Scorer | HasFusion, images: ImageFeatures) -> None:
        self.scorer: Any = getattr(model, "fusion", model)
        if not callable(self.scorer):
            raise TypeError(
                "expected a scorer (images, texts) -> (I, T), or a model whose fusion is one, got "
                f"{type(model).__name__}"
            )
        if getattr(self.scorer, "whole_gallery", False):
            raise TypeError(
                f"{type(self.scorer).__name__} scores a whole gallery at once, not in blocks; "
                "paired_matrix scores large ones"
            )
        self.device = device_of(self.scorer, images.regions.device)
        self.prepares = isinstance(self.scorer, PreparingScorer)

    def images(self, images: ImageFeatures) -> Items:
        """Return the images as the scorer takes them."""
        images = images.to(self.device)
        return self.scorer.prepare_images(images) if self.prepares else images

    def texts(self, texts: TextFeatures) -> Items:
        """Return the texts as the scorer takes them."""
        texts = texts.to(self.device)
        return self.scorer.prepare_texts(texts) if self.prepares else texts

    def __call__(self, images: Items, texts: Items) -> Tensor:
        """Return the scores (I, T) of images and texts as `images` and `texts` returned them."""
        return self.scorer(images, texts)


def device_of(model: object, otherwise: torch.device = CPU) -> torch.device:
    """Return the device of a module's weights; `otherwise` if it has none, or is no module."""
    if not isinstance(model, nn.Module):
        return otherwise
    first = next(chain(model.parameters(), model.buffers()), None)
    return otherwise if first is None else first.device


def walk(
    scorer: PreparedScorer,
    images: ImageFeatures,
    texts: TextFeatures,
    tile: tuple[int, int] | None,
    memory: int,
    wanted: Wanted | None = None,
) -> Iterator[Block]:
    """Yield every pair once, as (rows of images, indices of texts, scores (fp32, on the CPU)).

    Args:
        scorer: see `PreparedScorer`.
        images, texts: features; each block is moved to the scorer's device.
        tile: images and texts of a block; None: as many as the budget has room for.
        memory: bytes for all prepared items and for scoring a block.
        wanted: (rows, indices) -> True if that block is to be scored; None: all are.
    """
    if not len(images) or not len(texts):
        return
    one_image = scorer.images(images[:1]).nbytes
    height, width = tile or block_shape(scorer, images, texts, one_image, memory)
    rows = [slice(i, min(i + height, len(images))) for i in range(0, len(images), height)]
    keep = one_image * len(images) <= memory // 4
    kept: list[Items] = []
    pieces = (
        piece
        for piece in _pieces(scorer, texts, width, None if tile else memory // 32)
        if wanted is None or wanted(slice(0, len(images)), piece[0])
    )
    for held in _held(scorer, pieces, memory // 2):
        for number, block in enumerate(rows):
            # no variable names the last round's images: their memory is free for this one
            if number < len(kept):
                yield from _past(scorer, kept[number], block, held, wanted)
            elif keep:
                kept.append(scorer.images(images[block]))
                yield from _past(scorer, kept[number], block, held, wanted)
            elif wanted is None or any(wanted(block, columns) for columns, _ in held):
                yield from _past(scorer, scorer.images(images[block]), block, held, wanted)


def _past(
    scorer: PreparedScorer, images: Items, rows: slice, held: list[Piece], wanted: Wanted | None
) -> Iterator[Block]:
    for columns, texts in held:
        if wanted is None or wanted(rows, columns):
            yield rows, columns, scorer(images, texts).float().cpu()


def block_shape(
    scorer: PreparedScorer, images: ImageFeatures, texts: TextFeatures, one_image: int, memory: int
) -> tuple[int, int]:
    """Return the numbers of images and texts of a block.

    Prepared, images take a sixteenth of the budget and texts half of that: preparing takes twice
    what it leaves. A scorer that prepares nothing is assumed to write out every product of a word
    and a region and a vector a pair, twice, in as much memory as the device's caches serve well.
    """
    if scorer.prepares:
        one_text = scorer.texts(typical_text(texts)).nbytes
        return (
            max(1, min(len(images), memory // 16 // one_image)),
            max(1, min(-(-len(texts) // MIN_PIECES), memory // 32 // one_text)),
        )
    places, width = images.regions.shape[1:]
    per_pair = 2 * (places * texts.words.shape[1] + width) * texts.words.element_size()
    room = min(memory // 4, default_memory(scorer.device) // 8)
    return tile_shape(room, per_pair, len(images), len(texts))


def typical_text(texts: TextFeatures) -> TextFeatures:
    """Return the text of median length, without its padding."""
    if texts.mask is None:
        return texts[:1]
    middle = int(texts.mask.sum(1).median(0).indices)
    ((_, text),) = groups(texts[middle : middle + 1], 1)
    assert isinstance(text, TextFeatures)
    return text


def _pieces(
    scorer: PreparedScorer, texts: TextFeatures, width: int, limit: int | None
) -> Iterator[tuple[Tensor, TextFeatures]]:
    """Yield `width` texts of similar length at a time; fewer where long ones exceed `limit`."""
    for columns, part in groups(texts, width):
        assert isinstance(part, TextFeatures)
        size = width
        if scorer.prepares and limit is not None:
            size = max(1, min(width, 2 * limit // scorer.texts(part[:1]).nbytes))
        yield from zip(columns.cpu().split(size), part.split(size), strict=True)


def _held(
    scorer: PreparedScorer, pieces: Iterator[tuple[Tensor, TextFeatures]], limit: int
) -> Iterator[list[Piece]]:
    """Yield lists of prepared pieces, as many together as `limit` bytes hold."""
    held: list[Piece] = []
    size = 0
    for columns, part in pieces:
        ready = scorer.texts(part)
        if held and size + ready.nbytes > limit:
            yield held
            held.clear()  # frees the texts even while the caller keeps the list
            size = 0
        held.append((columns, ready))
        size += ready.nbytes
    if held:
        yield held


def with_bar(blocks: Iterator[Scored], pairs: int, done: int = 0) -> Iterator[Scored]:
    """Yield the same blocks, whose last part is scores, and show a bar of `pairs`.

    Args:
        done: pairs scored before.

    Raises:
        ImportError: no tqdm.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError('a progress bar needs `pip install "ascl-plugin[recipes]"`') from error
    with tqdm(
        desc="scoring", total=pairs, initial=done, unit="pair", unit_scale=True, leave=False
    ) as bar:
        for block in blocks:
            yield block
            bar.update(block[-1].numel())
