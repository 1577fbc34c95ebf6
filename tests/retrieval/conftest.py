"""Components that the tests of models name by dotted path, as another package's would be."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

from ascl_plugin.features import ImageFeatures


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
