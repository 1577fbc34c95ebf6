"""Heads and features drawn at random, for every test of the fusion."""

from __future__ import annotations

import pytest
import torch

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion


@pytest.fixture(scope="session")
def draw():
    """A function that gives a head and features in fp64, with holes in their masks.

    Weights are normal with deviation `spread`, features with `size`; every item has a real place.
    """

    def make(
        seed=0, images=3, regions=4, texts=2, words=5, dim=4, heads=2, masks=True, spread=1.0,
        size=1.0, whole=False, **options,
    ):  # fmt: skip
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        def drawn(items, places):
            values = normal(items, places, dim) * size
            if not masks:
                return values, None
            real = torch.rand(items, places, generator=generator) < 0.6
            real[torch.arange(items), torch.randint(places, (items,), generator=generator)] = True
            return values, real

        head = CrossModalFusion(dim, heads, **options).double()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(normal(*parameter.shape) * spread)
        v = ImageFeatures(*drawn(images, regions), normal(images, dim))
        w = TextFeatures(*drawn(texts, words), normal(texts, dim) if whole else None)
        return head, v, w

    return make
