"""The sizes of tiles of pairs, and texts in groups of similar length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise

import torch
from torch import Tensor

from ascl_plugin.features import TextFeatures
from ascl_plugin.fusion.parameters import FusionParameters
from ascl_plugin.fusion.prepared import PreparedTexts, Texts


def default_memory(device: torch.device) -> int:
    """Return the bytes for a tile: an eighth of a GPU's free memory, on a CPU 64 MiB.

    A CPU attends in parts that fit its caches, and returns the memory of large tensors to the
    system after each, to ask for it again. Measured by `benchmarks/fusion.py --table tiles`.
    """
    return _free(device) // 8 if device.type == "cuda" else 64 * 2**20


def default_kept(device: torch.device) -> int:
    """Return the bytes that tiles may keep for backward: half of a GPU's free memory, or 1 GiB."""
    return _free(device) // 2 if device.type == "cuda" else 2**30


def _free(device: torch.device) -> int:
    """Return the bytes of a GPU that torch can still give out, those it keeps for reuse included.

    Else tiles would shrink from call to call: a driver counts what torch has kept as taken.
    """
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def pair_bytes(
    head: FusionParameters, regions: int, words: int, itemsize: int, in_one_pass: bool = False
) -> tuple[int, int]:
    """Return the most bytes that a pair takes to attend, and to fuse what was attended to.

    Four tensors of H K L weights; mean weights and eight vectors of width D, or three if gate and
    cosines are worked out `in_one_pass`.
    """
    weights = head.num_heads * regions * words
    means = head.num_heads * (regions + words)
    return 4 * weights * itemsize, (means + (3 if in_one_pass else 8) * head.dim) * itemsize


def tile_shape(memory: int, per_pair: int, images: int, texts: int) -> tuple[int, int]:
    """Return images and texts of a tile of at most `memory` bytes, four texts an image if any."""
    pairs = max(1, memory // per_pair)
    height = min(images, max(1, math.isqrt(pairs // 4)))
    width = min(texts, max(1, pairs // max(1, height)))
    return max(1, min(images, pairs // max(1, width))), max(1, width)


def groups(texts: Texts, size: int) -> Iterator[tuple[Tensor, Texts]]:
    """Yield (places, texts at those places), at most `size` at a time, with padding cut.

    Short texts come first. Texts of one length make groups of their own, which need no mask, unless
    they are so few that a group would be small.
    """
    if isinstance(texts, PreparedTexts) or texts.mask is None:
        values = texts.queries if isinstance(texts, PreparedTexts) else texts.words
        places = torch.arange(len(texts), device=values.device).split(size)
        yield from zip(places, texts.split(size), strict=True)
        return
    order = texts.ends.argsort(stable=True)
    lengths = texts.ends[order].tolist()
    stops = list(_stops(lengths, size))
    sizes = [stop - start for start, stop in pairwise([0, *stops])]
    places = order.split(sizes)
    if torch.is_grad_enabled():
        # sorted and split at once: the gradient of a part taken out alone is as large as the whole
        parts: Iterable[TextFeatures] = texts[order].split(sizes)
    else:  # one at a time: all of them sorted would be a second copy
        parts = (texts[chosen] for chosen in places)
    for stop, chosen, part in zip(stops, places, parts, strict=True):
        longest = max(1, lengths[stop - 1])
        assert part.mask is not None
        mask = part.mask[:, :longest]
        words = part.words[:, :longest]
        yield chosen, TextFeatures(words, None if mask.all() else mask, part.pooled)


def _stops(lengths: list[int], size: int) -> Iterator[int]:
    """Yield the ends of groups: runs of one length in even parts, small runs together."""
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
