"""Training on balanced half-truths: two images and two texts a pair, and the four scores of it.

Each image is to prefer its own text. As both texts are made by one rule and each is the right one
of one image, a scorer that does not look at the image gains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.interfaces import Row, Scorer
from ascl_plugin.losses.contrast import contrast_loss
from ascl_plugin.retrieval.hard_pairs import has_plain_part

BALANCED = "balanced_"  # prefix of their tensors in a batch
_BLOCK = 16  # pairs that are scored all against all, by scorers that cannot do less


def balanced_inputs(
    rows: Sequence[Row],
    images: Callable[[Sequence[Row]], dict[str, Tensor]],
    texts: Callable[[list[str]], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Return the tensors of n pairs, under keys that begin with `BALANCED`.

    Args:
        rows: rows of A, B, A, B, ..., each with `text`, the one that is true of it.
        images, texts: as of `AsymmetryCollator`.
    """
    found = {**images(rows), **texts([row["text"] for row in rows])}
    return {f"{BALANCED}{name}": value for name, value in found.items()}


def balanced_scores(scorer: Scorer, images: ImageFeatures, texts: TextFeatures) -> Tensor:
    """Return S (n, 2, 2) of the images A, B of each pair with its texts.

    Args:
        scorer: any; of a fusion with plain global scores, the chosen pairs alone are attended.
        images: (2 n) images A, B, A, B, ...
        texts: (2 n) texts, each true of the image in its place.
    """
    parts = zip(images.split(2 * _BLOCK), texts.split(2 * _BLOCK), strict=True)
    if not has_plain_part(scorer):
        return torch.cat([_blocks(scorer(*part)) for part in parts])
    plain = torch.cat([_blocks(scorer.plain_scores(*part)) for part in parts])
    rows = torch.arange(len(images), device=plain.device).view(-1, 2)
    local = scorer.score_pairs_local(
        images, texts, rows.repeat_interleave(2, 1).flatten(), rows.repeat(1, 2).flatten()
    )
    return scorer.u2 * local.view_as(plain) + (1 - scorer.u2) * plain


def balanced_loss(
    scores: Tensor, temperature: float, margin: float = 0.0, focal: float = 0.0, sides: str = "both"
) -> Tensor:
    """Return `contrast_loss` of the contests within each pair of images.

    Args:
        scores: S (n, 2, 2), right ones on the diagonal.
        temperature, margin, focal: see `contrast_loss`.
        sides: "image": S(A, p) > S(A, q) and S(B, q) > S(B, p); "both": and S(A, p) > S(B, p),
            S(B, q) > S(A, q).
    """
    right = scores.diagonal(dim1=1, dim2=2)
    wrong = scores.flip(2).diagonal(dim1=1, dim2=2)  # S(A, q), S(B, p)
    if sides == "both":
        right, wrong = right.repeat(1, 2), torch.cat([wrong, wrong.flip(1)], 1)
    return contrast_loss(right, wrong, temperature=temperature, margin=margin, focal=focal)


def _blocks(scores: Tensor) -> Tensor:
    """Return the (n, 2, 2) blocks on the diagonal of (2 n, 2 n)."""
    pairs = len(scores) // 2
    return scores.view(pairs, 2, pairs, 2).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
