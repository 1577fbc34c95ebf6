"""Recall@k, median and mean rank of both directions, by counting; never a full sort."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.scores import Array, as_tensor, check_scores, row_chunks

# the image of each caption, or the captions of each image; None: caption i belongs to image i
Owners = Array | Sequence[int] | Sequence[Sequence[int]] | None


def retrieval_metrics(
    sim: Array, caption_to_image: Owners = None, t2i: Array | None = None
) -> dict[str, float]:
    """Return the standard metrics of image-text retrieval from one similarity matrix.

    Ties count against the model: a wrong item that scores the same as the right one is placed
    before it, so constant scores get the worst rank, not a lucky one.

    Args:
        sim: (I, T) similarities, numpy or torch, higher is nearer.
        caption_to_image: (T,) ints, the row of each caption's image. Each image has one or more,
            in no particular order. Or one list for each image, of its captions. None: caption i
            belongs to image i, for as many captions as images.
        t2i: (I, T), for the text-to-image direction instead of `sim`:
            ``retrieval_metrics(r.i2t, caption_to_image, t2i=r.t2i)`` after ``r = rerank(sim)``.

    Returns:
        ``i2t_r1, i2t_r5, i2t_r10``: percent of images with one of their captions among the first
        1, 5, 10. ``t2i_r1, ...``: percent of captions with their image there. ``i2t_medr,
        i2t_meanr, t2i_medr, t2i_meanr``: median and mean of the ranks, 1 the best. ``medr,
        meanr``: the mean of the two directions' values. ``rsum``: the sum of the six recalls.

    Raises:
        TypeError: scores are not a float array or tensor, caption_to_image does not hold integers.
        ValueError: NaN in scores (with row and column), or an empty matrix; t2i of another shape
            than sim; caption_to_image without T entries, out of range (with the caption), an
            image without caption, or a caption that lists give to several images or to none.

    Examples:
        >>> import numpy as np
        >>> from ascl_plugin.metrics.recall import retrieval_metrics
        >>> retrieval_metrics(np.eye(2), [0, 1])["rsum"]
        600.0
    """
    scores, owners = checked(sim, "sim", caption_to_image)
    text_scores, text_owners = other_direction(t2i, scores, owners)
    i2t_rank, t2i_rank = image_ranks(scores, owners), text_ranks(text_scores, text_owners)
    return metrics_of_ranks(i2t_rank.cpu().numpy(), t2i_rank.cpu().numpy())


def metrics_of_ranks(i2t_rank: np.ndarray, t2i_rank: np.ndarray) -> dict[str, float]:
    """Return the metrics of `retrieval_metrics` from the ranks of image and of text queries."""
    found = {"i2t": i2t_rank, "t2i": t2i_rank}
    result = {
        f"{name}_r{k}": 100 * float((rank <= k).mean())
        for name, rank in found.items()
        for k in (1, 5, 10)
    }
    rsum = sum(result.values())
    for name, rank in found.items():
        result[f"{name}_medr"] = float(np.median(rank))
        result[f"{name}_meanr"] = float(rank.mean())
    for statistic in ("medr", "meanr"):
        result[statistic] = (result[f"i2t_{statistic}"] + result[f"t2i_{statistic}"]) / 2
    return result | {"rsum": rsum}


def image_ranks(scores: Tensor, owners: Tensor) -> Tensor:
    """Return the rank of the best placed caption of each image, (I,) int64.

    It is 1 + the wrong captions that score as high; its other captions do not count. Scores are
    compared in their own precision: no rounding can make or break a tie.

    Args:
        scores, owners: as `checked` returns them.
    """
    result = torch.empty(len(scores), dtype=torch.int64, device=scores.device)
    image = torch.arange(len(scores), device=scores.device)[:, None]
    for rows in row_chunks(*scores.shape):
        chunk = scores[rows]
        own = owners == image[rows]
        best = chunk.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
        result[rows] = ((chunk >= best) & ~own).sum(dim=1) + 1
    return result


def text_ranks(scores: Tensor, owners: Tensor) -> Tensor:
    """Return the rank of each text's image, (T,) int64; see `image_ranks`."""
    right = scores.gather(0, owners[None])
    result = torch.zeros(scores.shape[1], dtype=torch.int64, device=scores.device)
    for rows in row_chunks(*scores.shape):
        result += (scores[rows] >= right).sum(dim=0)  # the right image counts itself: the 1
    return result


def other_direction(t2i: Array | None, scores: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """Return the text-to-image scores, `scores` if t2i is None, and owners on their device."""
    if t2i is None:
        return scores, owners
    if as_tensor(t2i, "t2i").shape != scores.shape:
        raise ValueError(
            f"t2i has shape {tuple(t2i.shape)}, sim has {tuple(scores.shape)}: "
            "both must be (images, texts)"
        )
    return checked(t2i, "t2i", owners)


def checked(sim: Array, name: str, caption_to_image: Owners) -> tuple[Tensor, Tensor]:
    """Return scores and owners on one device, after the checks of `retrieval_metrics`."""
    scores = as_tensor(sim, name)
    check_scores(scores, name, allow_infinite=True)
    images, texts = scores.shape
    owners = _owners(caption_to_image, images, texts, name)
    outside = np.flatnonzero((owners < 0) | (owners >= images))
    if len(outside):
        raise ValueError(
            f"caption_to_image: caption {outside[0]} points at image {owners[outside[0]]}, "
            f"{name} has images 0 to {images - 1}"
        )
    counts = np.bincount(owners.astype(np.int64), minlength=images)
    if not counts.all():
        raise ValueError(
            f"caption_to_image: image {int(np.argmin(counts))} has no caption, so no rank; leave "
            "out its row"
        )
    return scores, torch.from_numpy(owners.astype(np.int64)).to(scores.device)


def _owners(given: Owners, images: int, texts: int, name: str) -> np.ndarray:
    """Return the image of each caption, (T,), of any width and not yet checked against images."""
    if given is None:
        if images != texts:
            raise ValueError(
                f"{name} has {images} images and {texts} texts: without caption_to_image, text i "
                "belongs to image i; pass the image of each text"
            )
        return np.arange(texts)
    if isinstance(given, Tensor):
        given = given.cpu().numpy()
    if not isinstance(given, np.ndarray) and len(given) and np.ndim(given[0]):
        return _owners_of_lists(cast(Sequence[Sequence[int]], given), images, texts, name)
    owners = np.asarray(given)
    if owners.shape != (texts,):
        turned = f"; if {name} is (texts, images), pass its transpose"
        raise ValueError(
            f"caption_to_image has shape {owners.shape}, {name} has {texts} texts: "
            f"it needs one image index for each{turned if owners.shape == (images,) else ''}"
        )
    if owners.dtype.kind not in "iu":
        raise TypeError(f"caption_to_image must hold integers, got {owners.dtype}")
    return owners


def _owners_of_lists(
    captions: Sequence[Sequence[int]], images: int, texts: int, name: str
) -> np.ndarray:
    """Return the image of each caption from the captions of each image."""
    if len(captions) != images:
        raise ValueError(
            f"caption_to_image has {len(captions)} lists, {name} has {images} images: it needs one "
            "list of captions for each"
        )
    owners = np.full(texts, -1)
    for image, own in enumerate(captions):
        for caption in own:
            if not 0 <= operator.index(caption) < texts:
                raise ValueError(
                    f"caption_to_image: image {image} has caption {caption}, {name} has texts 0 to "
                    f"{texts - 1}"
                )
            if owners[caption] >= 0:
                raise ValueError(
                    f"caption_to_image: caption {caption} belongs to image {owners[caption]} and "
                    f"to image {image}; each needs one image"
                )
            owners[caption] = image
    if (owners < 0).any():
        raise ValueError(
            f"caption_to_image: caption {int(np.argmin(owners))} belongs to no image; leave out "
            "its column"
        )
    return owners
