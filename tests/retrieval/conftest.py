"""Components that the tests of models name by dotted path, as another package's would be."""

from __future__ import annotations

import sys
import types
import weakref

import pytest
import torch
from torch import nn

from ascl_plugin.features import ImageFeatures, TextFeatures


class FrozenPixels(nn.Module):
    """An image encoder with pretrained weights that no optimiser moves: a fixed projection."""

    frozen = True

    def __init__(self, seed: int = 0, regions: int = 4) -> None:
        super().__init__()
        self.region_dim = self.pooled_dim = 6
        self.register_buffer("scale", torch.ones(()))
        self.projection = nn.Linear(3, 6, bias=False).requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        self.projection.weight.copy_(torch.randn(6, 3, generator=generator))
        self.regions = regions

    def forward(self, pixel_values):
        cells = pixel_values.flatten(2)[:, :, : self.regions].transpose(1, 2)
        regions = self.projection(cells) * self.scale
        return ImageFeatures(regions, None, regions.mean(1))


@pytest.fixture
def frozen_pixels(monkeypatch):
    """Dotted path of `FrozenPixels`."""
    module = types.ModuleType("somebodys_encoders")
    module.FrozenPixels = FrozenPixels
    monkeypatch.setitem(sys.modules, "somebodys_encoders", module)
    return "somebodys_encoders:FrozenPixels"


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
