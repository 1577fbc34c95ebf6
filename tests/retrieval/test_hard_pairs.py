"""Hard pairs: chosen by the plain score, scored by the whole, the rest left out."""

from __future__ import annotations

import pytest
import torch

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, LateInteraction, PooledSimilarity
from ascl_plugin.retrieval.hard_pairs import (
    check_scorer,
    first_texts,
    hard_pairs,
    score_hard_pairs,
)


def test_pairs_are_chosen_by_hand():
    """Hardest wrong image of each text: 2, 2, 1. Hardest wrong text of each image: 1, 2, 1."""
    sim = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.7, 0.6], [0.4, 0.75, 0.3]])
    rows, columns = hard_pairs(sim, 1)
    found = list(zip(rows.tolist(), columns.tolist(), strict=True))
    assert found == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    rows, columns = hard_pairs(sim, 0, 1)  # each image with its text and the one behind it
    found = list(zip(rows.tolist(), columns.tolist(), strict=True))
    assert found == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 2)]


def test_more_than_there_are_takes_all():
    for counts in ((9, 0), (0, 9)):
        assert len(hard_pairs(torch.rand(4, 4), *counts)[0]) == 16


def test_scores_are_entries_of_the_whole_and_the_local_part_learns():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    images = ImageFeatures(draw(5, 3, 8).requires_grad_(), None, draw(5, 8).requires_grad_())
    texts = TextFeatures(draw(5, 5, 8).requires_grad_(), torch.ones(5, 5, dtype=torch.bool))
    fusion = CrossModalFusion(8, 2, local_weight=0.3, global_score="plain")
    found = score_hard_pairs(check_scorer(fusion), images, texts, 1)
    chosen = found > -torch.inf
    assert 5 < chosen.sum() < 25 and chosen.diagonal().all()
    torch.testing.assert_close(found[chosen], fusion(images, texts)[chosen])
    found[chosen].sum().backward()
    assert images.pooled.grad is None and texts.words.grad.abs().sum() > 0


def test_all_pairs_are_scored_in_one_block_of_the_same_values():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    images = ImageFeatures(draw(5, 3, 8).requires_grad_(), None, draw(5, 8).requires_grad_())
    mask = torch.arange(4) < torch.tensor([4, 2, 0, 1, 3])[:, None]
    texts = TextFeatures(draw(5, 4, 8).requires_grad_(), mask)
    for scorer in (LateInteraction(0.3), CrossModalFusion(8, 2, 0.3, global_score="plain")):
        found = score_hard_pairs(check_scorer(scorer), images, texts, 4)
        torch.testing.assert_close(found, scorer(images, texts))
        rows, columns = torch.arange(5).repeat_interleave(5), torch.arange(5).repeat(5)
        pairs = scorer.score_pairs_local(images, texts, rows, columns).view(5, 5)
        torch.testing.assert_close(scorer.local_scores(images, texts), pairs)
        inputs = images.regions, texts.words
        gradients = torch.autograd.grad(found.sum(), [*inputs, images.pooled], allow_unused=True)
        assert gradients[2] is None
        torch.testing.assert_close(gradients[:2], torch.autograd.grad(0.3 * pairs.sum(), inputs))


def test_first_texts():
    assert first_texts(torch.tensor([0, 0, 1, 2, 2, 2])).tolist() == [0, 2, 3]


def test_scorers_of_one_part_are_refused():
    for scorer in (
        LateInteraction(),
        CrossModalFusion(8, 2),
        CrossModalFusion(8, 2, local_weight=1.0, global_score="plain"),
        PooledSimilarity(),
    ):
        with pytest.raises(ValueError, match="hard_pairs needs a fusion of a local and a plain"):
            check_scorer(scorer)
