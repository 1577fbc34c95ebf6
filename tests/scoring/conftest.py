"""Scorers and features that the tests of score matrices share."""

from __future__ import annotations

import weakref

import pytest
import torch

from ascl_plugin.features import ImageFeatures, TextFeatures


class Counting:
    """A scorer that prepares: its items are copies, whose number and bytes alive are counted."""

    def __init__(self):
        self.prepared = {"images": [], "texts": []}
        self.alive = self.most = 0

    def _copy(self, items, kind, values):
        self.prepared[kind] += values.unique().tolist()
        copy = items[torch.arange(len(items))]
        for tensor in (copy.pooled, copy.regions) if kind == "images" else (copy.words,):
            self._born(tensor.untyped_storage())
        return copy

    def _born(self, storage):
        size = storage.nbytes()
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size):
        self.alive -= size

    def prepare_images(self, images):
        return self._copy(images, "images", images.pooled[:, 0])

    def prepare_texts(self, texts):
        return self._copy(texts, "texts", texts.words[:, 0, 0])

    def __call__(self, images, texts):
        return images.pooled[:, :1] + 100 * texts.words[:, 0, :1].T


@pytest.fixture
def counting():
    """`Counting`, the class."""
    return Counting


@pytest.fixture
def numbered():
    """A function of how many images and texts, and words: image i holds i, text t holds t."""

    def make(images, texts, words=1):
        values = torch.arange(float(texts))[:, None, None].expand(texts, words, 2)
        pooled = torch.arange(float(images))[:, None].expand(images, 2)
        return ImageFeatures(torch.zeros(images, 1, 2), None, pooled), TextFeatures(values)

    return make
