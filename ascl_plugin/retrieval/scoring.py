"""All images against all texts, a tile at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures

Scorer = Callable[[ImageFeatures, TextFeatures], Tensor]


@torch.no_grad()
def score_matrix(
    model: Any,
    images: ImageFeatures,
    texts: TextFeatures,
    tile: tuple[int, int] = (16, 64),
    progress: bool = False,
) -> Tensor:
    """Scores S (I, T) on the CPU, never more than one tile of pairs in flight.

    Texts are scored in order of length and each tile is cut to its longest, so padding costs
    little; the matrix comes back in the order given.

    Args:
        model: a scorer `(images, texts) -> (I, T)`, or a model whose `fusion` is one.
        images, texts: features, where the scorer wants them (its device is theirs).
        tile: images and texts scored at once.
        progress: show a bar.

    Raises:
        ValueError: a tile without extent; what the scorer raises.
    """
    if min(tile) < 1:
        raise ValueError(f"tile must be (images, texts) of at least 1 each, got {tile}")
    scorer: Scorer = getattr(model, "fusion", model)
    sim = torch.empty(len(images), len(texts))
    tiles = _text_tiles(texts, tile[1])
    if progress:
        from tqdm.auto import tqdm

        tiles = tqdm(tiles, desc="scoring", unit="tile", leave=False)
    for columns, part in tiles:
        for start in range(0, len(images), tile[0]):
            rows = slice(start, start + tile[0])
            sim[rows, columns] = scorer(images[rows], part).float().cpu()
    return sim


def _text_tiles(texts: TextFeatures, size: int) -> list[tuple[Tensor, TextFeatures]]:
    """(columns, texts of those columns) for each tile, short texts first, padding cut."""
    if texts.mask is None:
        chunks = torch.arange(len(texts)).split(size)
        return [(c, texts[c.to(texts.words.device)]) for c in chunks]
    # the place of the last real word: padding may stand anywhere, only a padded tail is cut
    places = torch.arange(1, texts.mask.shape[1] + 1, device=texts.mask.device)
    lengths = (texts.mask * places).amax(1).clamp_min(1)
    tiles = []
    for chunk in lengths.argsort(stable=True).split(size):
        longest = int(lengths[chunk].max())
        part = TextFeatures(texts.words[chunk, :longest], texts.mask[chunk, :longest])
        tiles.append((chunk.cpu(), part))
    return tiles
