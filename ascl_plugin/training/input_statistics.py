"""Statistics of a model's `input_norm`, from a sample of the training split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from datasets import Dataset
from torch import Tensor

from ascl_plugin.retrieval.inputs import BatchImages, TextInputs
from ascl_plugin.retrieval.model import RetrievalModel

IMAGES, TEXTS = 10_000, 20_000  # sampled at most
AT_ONCE = 128  # images or texts


def fit_input_norm(
    model: RetrievalModel,
    images: BatchImages,
    texts: TextInputs,
    rows: object,
    captions: Iterable[str],
) -> None:
    """Fit the model's `input_norm`, if it has one without statistics; the same on every rank.

    Args:
        model: the model, on its device.
        images, texts: conversion of rows and strings to inputs.
        rows: the training split; of more images than `IMAGES`, that many are drawn.
        captions: training texts, of which the first `TEXTS` are read.

    Raises:
        ValueError: the split is streamed; see `RetrievalModel.fit_input_norm`.
    """
    if not model.needs_input_norm:
        return
    if not isinstance(rows, Dataset):
        raise ValueError(
            "input_norm needs training pairs that can be listed, not train_stream; --start_from a "
            "run that has its statistics, or --input_norm none"
        )
    model.fit_input_norm(_batches(images, texts, rows, captions))


def _batches(
    images: BatchImages, texts: TextInputs, rows: Dataset, captions: Iterable[str]
) -> Iterator[dict[str, Tensor]]:
    columns = rows.select_columns(["image_id", "image", "captions"])
    drawn = np.random.default_rng([0, len(rows)]).permutation(len(rows))[:IMAGES]
    for start in range(0, len(drawn), AT_ONCE):
        yield images([columns[int(row)] for row in np.sort(drawn[start : start + AT_ONCE])])
    left = iter(captions)
    for _ in range(0, TEXTS, AT_ONCE):
        if not (some := list(islice(left, AT_ONCE))):
            return
        yield texts(some)
