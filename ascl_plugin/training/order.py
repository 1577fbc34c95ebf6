"""Which pairs are in which batch: a function of the seed and the epoch alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

Pair = tuple[int, int]  # (row, caption index)


def epoch_batches(
    seed: int, epoch: int, caption_counts: Sequence[int], batch_size: int, captions: int = 0
) -> list[list[Pair]]:
    """The batches of an epoch, the same whatever the number of processes and workers.

    An epoch is made of passes; a pass holds every image once, with another caption each time, so
    that no batch holds two captions of one image, each a false negative of the other. The few
    images that do not fill the last batch of a pass are left out of that pass.

    Args:
        seed, epoch: of the run.
        caption_counts: (I,) captions of each image, any number from 1.
        batch_size: pairs in a batch; at most the number of images.
        captions: passes in an epoch; 0 is as many as an image has captions at most.

    Returns:
        Batches of (row, caption index).

    Raises:
        ValueError: fewer images than a batch holds, or a batch of one, which has no negatives.
    """
    counts = np.asarray(caption_counts)
    if batch_size < 2:
        raise ValueError(f"batch_size is {batch_size}; a pair alone has nothing to compete with")
    if len(counts) < batch_size:
        raise ValueError(f"{len(counts)} images do not fill a batch of {batch_size}")
    generator = np.random.default_rng([seed, epoch])
    orders = [generator.permutation(count) for count in counts]
    batches = []
    for number in range(captions or int(counts.max())):
        # with a limit on passes, an image with fewer captions is shown again
        there = np.arange(len(counts)) if captions else np.flatnonzero(counts > number)
        rows = generator.permutation(there)
        for start in range(0, len(rows) - batch_size + 1, batch_size):
            chosen = rows[start : start + batch_size]
            batches.append([(int(r), int(orders[r][number % counts[r]])) for r in chosen])
    return batches


def rows_told(rows: Any) -> str:
    """What rows and caption indices stand for, in a line: other data give other words.

    Args:
        rows: with `image_id` and `captions`; where the pictures lie does not matter.
    """
    ids, captions = rows["image_id"][:], rows["captions"][:]
    digest = hashlib.sha256()
    for image_id, texts in zip(ids, captions, strict=True):
        digest.update(repr((image_id, list(texts))).encode())
    return f"{len(ids)} images, SHA-256 {digest.hexdigest()[:16]}"
