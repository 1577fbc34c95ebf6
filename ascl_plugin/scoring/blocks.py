"""The walk over all pairs, block by block, within a budget of memory.

Texts are taken in order of length, in pieces of similar length, and as many pieces as half the
budget holds are prepared once. Past them go the images, a few at a time: each is prepared once for
all those pieces, or once for good where all images fit into a quarter of the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ascl_plugin.features import ImageFeatures, Items, TextFeatures
from ascl_plugin.fusion.factored import default_memory, groups, tile_shape

Scorer = Callable[[Any, Any], Tensor]
Wanted = Callable[[slice, Tensor], bool]
Block = tuple[slice, Tensor, Tensor]  # rows of images, places of texts, scores
Scored = TypeVar("Scored", bound=tuple)
Piece = tuple[Tensor, Items]  # places of texts, and those texts as the scorer takes them

PIECES = 32  # of texts at least: of many lengths in one piece, all would be padded to the longest


class Sides:
    """How a scorer takes its two sides: prepared, where it can do that, and on its device.

    Args:
        scorer: `(images, texts) -> (I, T)`; with `prepare_images` and `prepare_texts` it gets what
            these return in place of features.
        device: where it wants them.
    """

    def __init__(self, scorer: Scorer, device: torch.device) -> None:
        self.scorer: Any = scorer
        self.device = device
        self.prepares = all(hasattr(scorer, f"prepare_{side}") for side in ("images", "texts"))

    def images(self, images: ImageFeatures) -> Items:
        """The images, ready for the scorer."""
        images = images.to(self.device)
        return self.scorer.prepare_images(images) if self.prepares else images

    def texts(self, texts: TextFeatures) -> Items:
        """The texts, ready for the scorer."""
        texts = texts.to(self.device)
        return self.scorer.prepare_texts(texts) if self.prepares else texts


def device_of(model: Any, images: ImageFeatures) -> torch.device:
    """Where a scorer with weights has them; of any other, where the images are."""
    if isinstance(model, nn.Module):
        for tensors in (model.parameters(), model.buffers()):
            for tensor in tensors:
                return tensor.device
    return images.regions.device


def walk(
    scorer: Scorer,
    images: ImageFeatures,
    texts: TextFeatures,
    tile: tuple[int, int] | None,
    memory: int,
    device: torch.device,
    wanted: Wanted | None = None,
) -> Iterator[Block]:
    """Every pair once, as (rows of images, places of texts, scores): scores are fp32 on the CPU.

    Args:
        scorer: `(images, texts) -> (I, T)`.
        images, texts: features; each block is moved to `device`.
        tile: images and texts of a block; None takes what the budget has room for.
        memory: bytes for all that is prepared and for what a block takes to score.
        device: of the scorer.
        wanted: whether the block of these rows and places is; None wants all.
    """
    if not len(images) or not len(texts):
        return
    sides = Sides(scorer, device)
    one_image = sides.images(images[:1]).nbytes
    height, width = tile or block_shape(sides, images, texts, one_image, memory)
    rows = [slice(i, min(i + height, len(images))) for i in range(0, len(images), height)]
    keep = one_image * len(images) <= memory // 4
    kept: list[Items] = []
    pieces = (
        piece
        for piece in _pieces(sides, texts, width, None if tile else memory // 32)
        if wanted is None or wanted(slice(0, len(images)), piece[0])
    )
    for held in _held(sides, pieces, memory // 2):
        for number, block in enumerate(rows):
            # nothing of the last round is named here: its memory is free for this one
            if number < len(kept):
                yield from _past(scorer, kept[number], block, held, wanted)
            elif keep:
                kept.append(sides.images(images[block]))
                yield from _past(scorer, kept[number], block, held, wanted)
            elif wanted is None or any(wanted(block, places) for places, _ in held):
                yield from _past(scorer, sides.images(images[block]), block, held, wanted)


def _past(
    scorer: Scorer, images: Items, rows: slice, held: list[Piece], wanted: Wanted | None
) -> Iterator[Block]:
    for places, texts in held:
        if wanted is None or wanted(rows, places):
            yield rows, places, scorer(images, texts).float().cpu()


def block_shape(
    sides: Sides, images: ImageFeatures, texts: TextFeatures, one_image: int, memory: int
) -> tuple[int, int]:
    """Images and texts of a block.

    Prepared, images take a sixteenth of the budget and texts half of that: preparing takes twice
    what it leaves, and texts come in pieces of one length. A scorer that prepares nothing is taken
    to write out every product of a word and a region and a vector a pair, twice, in as much as the
    device's caches serve well.
    """
    if sides.prepares:
        one_text = sides.texts(typical_text(texts)).nbytes
        return (
            max(1, min(len(images), memory // 16 // one_image)),
            max(1, min(-(-len(texts) // PIECES), memory // 32 // one_text)),
        )
    places, width = images.regions.shape[1:]
    per_pair = 2 * (places * texts.words.shape[1] + width) * texts.words.element_size()
    room = min(memory // 4, default_memory(sides.device) // 8)
    return tile_shape(room, per_pair, len(images), len(texts))


def typical_text(texts: TextFeatures) -> TextFeatures:
    """The text of median length, its padding cut."""
    if texts.mask is None:
        return texts[:1]
    middle = int(texts.mask.sum(1).median(0).indices)
    ((_, text),) = groups(texts[middle : middle + 1], 1)
    assert isinstance(text, TextFeatures)
    return text


def _pieces(
    sides: Sides, texts: TextFeatures, width: int, limit: int | None
) -> Iterator[tuple[Tensor, TextFeatures]]:
    """Texts of similar length, `width` at a time; fewer where so many long ones pass `limit`."""
    for columns, part in groups(texts, width):
        assert isinstance(part, TextFeatures)
        size = width
        if sides.prepares and limit is not None:
            size = max(1, min(width, 2 * limit // sides.texts(part[:1]).nbytes))
        yield from zip(columns.cpu().split(size), part.split(size), strict=True)


def _held(
    sides: Sides, pieces: Iterator[tuple[Tensor, TextFeatures]], limit: int
) -> Iterator[list[Piece]]:
    """Pieces, made ready, as many together as `limit` bytes hold."""
    held: list[Piece] = []
    size = 0
    for columns, part in pieces:
        ready = sides.texts(part)
        if held and size + ready.nbytes > limit:
            yield held
            held.clear()  # nobody who still has the list has the texts
            size = 0
        held.append((columns, ready))
        size += ready.nbytes
    if held:
        yield held


def with_bar(blocks: Iterator[Scored], pairs: int, done: int = 0) -> Iterator[Scored]:
    """The same blocks, scores last in each, counted on a bar of `pairs`, `done` of them before.

    Raises:
        ImportError: no tqdm.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError('a progress bar needs `pip install "ascl-plugin[recipes]"`') from error
    unit: dict[str, Any] = {"unit": "pair", "unit_scale": True, "leave": False}
    with tqdm(desc="scoring", total=pairs, initial=done, **unit) as bar:
        for block in blocks:
            yield block
            bar.update(block[-1].numel())
