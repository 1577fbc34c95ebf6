"""Scores and loss of balanced pairs: two images, two texts, the right ones on the diagonal."""

from __future__ import annotations

import math

import pytest
import torch

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, LateInteraction
from ascl_plugin.fusion.pooled import PooledSimilarity
from ascl_plugin.retrieval.balanced_scores import balanced_loss, balanced_scores


@pytest.mark.parametrize(
    "scorer",
    [
        PooledSimilarity("pooled"),
        LateInteraction(),
        CrossModalFusion(8, 2),
        CrossModalFusion(8, 2, local_weight=0.3, global_score="plain"),
    ],
    ids=["pooled", "late", "fusion", "plain"],
)
def test_scores_are_entries_of_the_whole_matrix(scorer):
    """37 pairs: two full blocks and a part."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    images = ImageFeatures(draw(74, 3, 8), None, draw(74, 8))
    mask = torch.arange(5) < torch.randint(1, 6, (74, 1), generator=generator)
    texts = TextFeatures(draw(74, 5, 8), mask, draw(74, 8).requires_grad_())
    found, whole = balanced_scores(scorer, images, texts), scorer(images, texts)
    for pair in range(37):
        own = slice(2 * pair, 2 * pair + 2)
        torch.testing.assert_close(found[pair], whole[own, own])


def test_loss_by_hand():
    """t = .1. Image A: .5 over .3; image B: .4 over .4. Text p: A .5 over B .4; q: B .4 over A .3.

    log(1 + e^-2) = .126928, log 2 = .693147, log(1 + e^-1) = .313262 twice.
    """
    scores = torch.tensor([[[0.5, 0.3], [0.4, 0.4]]])
    terms = [math.log1p(math.exp(-d)) for d in (2, 0, 1, 1)]
    image = balanced_loss(scores, 0.1, sides="image")
    assert image.item() == pytest.approx(sum(terms[:2]) / 2)
    assert balanced_loss(scores, 0.1).item() == pytest.approx(sum(terms) / 4)


def test_a_text_that_scores_high_everywhere_gains_nothing():
    """One text's score raised for both images: the contests of images lose what they gain."""
    bonus = torch.zeros((), requires_grad=True)
    scores = torch.tensor([[[0.4, 0.4], [0.4, 0.4]]]) + bonus * torch.tensor([1.0, 0.0])
    balanced_loss(scores, 0.1).backward()
    assert bonus.grad.item() == pytest.approx(0, abs=1e-6)
