"""The two scorers without attention, by hand and against one pair after the other."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import LateInteraction, PooledSimilarity
from ascl_plugin.fusion import late_interaction as late


def test_pooled_similarity_by_hand():
    """Regions (1, 0), (0, 1) and a masked one: mean (1/2, 1/2). Words (3, 4) and a masked one.

    cos((1, 1), (3, 4)) = 7 / (5 sqrt(2)). The pooled feature (0, 2) against (3, 4): 4/5.
    """
    images = ImageFeatures(
        torch.tensor([[[1.0, 0], [0, 1], [9, 9]]]),
        torch.tensor([[True, True, False]]),
        torch.tensor([[0.0, 2]]),
    )
    texts = TextFeatures(torch.tensor([[[3.0, 4], [-9, 9]]]), torch.tensor([[True, False]]))
    by_regions = PooledSimilarity()(images, texts)
    assert by_regions.item() == pytest.approx(7 / (5 * math.sqrt(2)))
    assert PooledSimilarity(image="pooled")(images, texts).item() == pytest.approx(0.8)
    for dtype, wanted in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        v = ImageFeatures(images.regions.to(dtype), images.mask)
        assert PooledSimilarity()(v, TextFeatures(texts.words.to(dtype))).dtype == wanted


def test_options_and_inputs_that_do_not_fit_are_refused():
    for options in ({"local_weight": 7.0}, {"direction_weight": -0.1}, {"local_weight": math.nan}):
        ((name, value),) = options.items()
        with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], got {value}"):
            LateInteraction(**options)
    with pytest.raises(ValueError, match="'regions' or 'pooled', got 'cls'"):
        PooledSimilarity("cls")
    images, texts = ImageFeatures(torch.ones(1, 2, 4)), TextFeatures(torch.ones(1, 2, 4))
    with pytest.raises(ValueError, match="images without pooled"):
        PooledSimilarity("pooled")(images, texts)
    for scorer in (LateInteraction(), PooledSimilarity()):
        with pytest.raises(TypeError, match=r"images must be ImageFeatures, got ndarray of shape"):
            scorer(images.regions.numpy(), texts)
        with pytest.raises(TypeError, match=r"texts must be TextFeatures, got Tensor of shape"):
            scorer(images, texts.words)


def test_late_interaction_by_hand():
    """Words (3, 4), (-1, 0) and a masked one; regions (2, 0), (0, 5) and a masked (-1, 0).

    The first word's best region is (0, 5): 4/5. The second's would be the masked one; of the real
    ones it is (0, 5) again: 0, over (2, 0) at -1. Mean 2/5.
    """
    images = ImageFeatures(
        torch.tensor([[[2.0, 0], [0, 5], [-1, 0]]]), torch.tensor([[True, True, False]])
    )
    texts = TextFeatures(torch.tensor([[[3.0, 4], [-1, 0], [9, 0]]]), torch.tensor([[1, 1, 0]]) > 0)
    assert LateInteraction()(images, texts).item() == pytest.approx(0.4)
    # regions: (2, 0)'s best word is (3, 4) at 3/5, (0, 5)'s too at 4/5; the masked ones have no say
    other = LateInteraction(direction_weight=1.0)(images, texts).item()
    assert other == pytest.approx(0.7)
    both_ways = LateInteraction(direction_weight=0.25)(images, texts).item()
    assert both_ways == pytest.approx(0.25 * 0.7 + 0.75 * 0.4)
    # the pooled feature (0, 2) against the mean word (1, 2): 2 / sqrt(5)
    images = ImageFeatures(images.regions, images.mask, torch.tensor([[0.0, 2]]))
    weighed = LateInteraction(local_weight=0.25)(images, texts).item()
    assert weighed == pytest.approx(0.25 * 0.4 + 0.75 * 2 / math.sqrt(5))
    both = TextFeatures(texts.words[:, :2])
    assert LateInteraction()(images, both).item() == pytest.approx(0.4)
    whole = ImageFeatures(images.regions)
    assert LateInteraction()(whole, both).item() == pytest.approx((0.8 + 1) / 2)


def _plain_local(v, w, u1):
    """S_local of late interaction by maxima that autograd records, as the equation reads."""
    cosines = torch.cosine_similarity(v.regions[:, :, None, None], w.words, dim=-1)  # (I, K, T, L)
    by_word = cosines.masked_fill(~v.mask[:, :, None, None], -2).amax(1)  # (I, T, L)
    by_region = cosines.masked_fill(~w.mask, -2).amax(3)  # (I, K, T)
    by_word = (by_word * w.mask).sum(2) / w.mask.sum(1)
    by_region = (by_region * v.mask[..., None]).sum(1) / v.mask.sum(1, keepdim=True)
    return u1 * by_region + (1 - u1) * by_word


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([1, 2**20]))
def test_late_interaction_has_the_gradient_of_plain_maxima(seed, u1, memory):
    """In fp64, images one at a time or all at once, with and without a gradient recorded."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(items, places):
        values = torch.randn(items, places, 4, generator=generator, dtype=torch.float64)
        lengths = torch.randint(1, places + 1, (items, 1), generator=generator)
        return values, torch.arange(places) < lengths

    (regions, real_regions), (words, real_words) = drawn(3, 4), drawn(5, 6)
    weights = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    found = []
    for scorer in (LateInteraction(direction_weight=u1), lambda v, w: _plain_local(v, w, u1)):
        v, w = regions.clone().requires_grad_(), words.clone().requires_grad_()
        with mock.patch.object(late, "_memory", lambda device: memory):
            scores = scorer(ImageFeatures(v, real_regions), TextFeatures(w, real_words))
        scores.backward(weights)
        found.append((scores, v.grad, w.grad))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    images, texts = ImageFeatures(regions, real_regions), TextFeatures(words, real_words)
    again = LateInteraction(direction_weight=u1)(images, texts)
    torch.testing.assert_close(again, found[0][0].detach(), rtol=0, atol=1e-12)
