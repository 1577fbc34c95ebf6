"""Local scores of chosen pairs: entries of the whole matrix, with the gradients of those."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import LateInteraction, pair_scores

ROWS = torch.tensor([4, 0, 4, 2, 0, 4, 1])
COLUMNS = torch.tensor([0, 6, 5, 6, 6, 3, 1])  # image 0 with text 6 twice, text 2 and 4 never


def both(scorer, matrix, images, texts):
    """Values and gradients of weighted sums: of pairs, and of the same entries of the matrix."""
    weights = torch.randn(
        len(ROWS), dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    found = []
    for pairs in (True, False):
        v, w = images.regions.clone().requires_grad_(), texts.words.clone().requires_grad_()
        x, y = ImageFeatures(v, images.mask, images.pooled), TextFeatures(w, texts.mask)
        if pairs:
            scores = scorer.score_pairs_local(x, y, ROWS, COLUMNS)
        else:
            scores = matrix(x, y)[ROWS, COLUMNS]
        learned = [v, w, *scorer.parameters()]
        gradients = torch.autograd.grad((scores * weights).sum(), learned, allow_unused=True)
        found.append((scores, *(torch.zeros(()) if g is None else g for g in gradients)))
    return found


@pytest.mark.parametrize("attention", ["projected", "parameter-free"])
@pytest.mark.parametrize("pooling", ["mean", "mean_softmin"])
@pytest.mark.parametrize("chunk", [1, 10**9])
@pytest.mark.parametrize("masks", [True, False])
def test_pairs_are_entries_of_the_matrix(draw, attention, pooling, chunk, masks):
    options = {"attention": attention, "word_pooling": pooling, "masks": masks}
    head, images, texts = draw(5, 5, 4, 7, 6, dim=8, direction_weight=0.3, **options)
    with mock.patch.object(pair_scores, "CHUNK", chunk):
        found = both(head, lambda v, w: head.score_parts(v, w, "reference")[0], images, texts)
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_no_pairs_and_uneven_ones(draw):
    head, images, texts = draw()
    assert head.score_pairs_local(images, texts, ROWS[:0], ROWS[:0]).shape == (0,)
    with pytest.raises(ValueError, match="2 rows for 1 columns"):
        head.score_pairs_local(images, texts, ROWS[:2], ROWS[:1])


@pytest.mark.parametrize("pooling", ["mean", "mean_softmin"])
def test_pairs_of_late_interaction(draw, pooling):
    _, images, texts = draw(6, 5, 4, 7, 6, dim=8)
    late = LateInteraction(direction_weight=0.3, word_pooling=pooling).double()
    for ours, expected in zip(*both(late, late, images, texts), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
