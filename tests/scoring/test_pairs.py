"""Scores of listed pairs: those of the matrix, and no image prepared more often than needed."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.features import TextFeatures
from ascl_plugin.fusion import CrossModalFusion, LateInteraction, PooledSimilarity
from ascl_plugin.scoring import pairs
from ascl_plugin.scoring.pairs import score_pairs

SCORERS = [
    CrossModalFusion(4, 2),
    CrossModalFusion(4, 2, attention="parameter-free"),
    LateInteraction(),
    PooledSimilarity(),
]


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 7), st.integers(1, 9), st.integers(0, 40), st.booleans(), st.booleans(),
    st.sampled_from([1, 2**12, 2**15, 2**30]), st.booleans(), st.sampled_from(SCORERS),
    st.integers(0, 99),
)  # fmt: skip
def test_pairs_are_scored_as_in_the_matrix(
    features, images, texts, count, masked, tail, memory, grouped, scorer, seed
):
    """Also a pair listed twice, and texts without a pair."""
    v, w = features(images, texts, masked, tail)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(images, (count,), generator=generator)
    columns = torch.randint(texts, (count,), generator=generator)
    near = torch.randint(3, (texts,), generator=generator) if grouped else None
    found = score_pairs(scorer, v, w, rows, columns, near, memory)
    assert found.dtype == torch.float32 and found.device.type == "cpu"
    expected = scorer(v, w).detach()[rows, columns]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_texts_that_belong_together_spare_images(numbered, counting):
    """40 texts of 8 bytes, 20 of them in half of the budget of 320 bytes: two blocks.

    Text t has its pair with image t % 2. Even and odd texts apart, each image meets one block;
    in the order given, both meet both. (Image 0 is prepared once more, to be measured.)
    """
    images, texts = numbered(2, 40)
    rows, columns = torch.arange(40) % 2, torch.arange(40)
    prepared = {}
    for name, near in (("apart", columns % 2), ("given", None)):
        scorer = counting()
        found = score_pairs(scorer, images, texts, rows, columns, near, memory=320)
        assert torch.equal(found, (rows + 100 * columns).float())
        prepared[name] = sorted(scorer.prepared["images"])
    assert prepared == {"apart": [0, 0, 1], "given": [0, 0, 0, 1, 1]}


def test_one_block_of_texts_at_a_time_within_half_the_budget(numbered, counting, monkeypatch):
    """All of 30 images with all of 200 texts, of 1 to 12 words of 8 bytes, in 6000 bytes."""
    made, blocks = [], pairs._prepared

    def ready(*arguments):
        assert all(block() is None for block in made), "an earlier block is still there"
        block = blocks(*arguments)
        made.append(weakref.ref(block))
        sizes.append(block.nbytes)
        return block

    sizes = []
    monkeypatch.setattr(pairs, "_prepared", ready)
    scorer = counting()
    images, texts = numbered(30, 200, 12)
    lengths = torch.randint(1, 13, (200, 1), generator=torch.Generator().manual_seed(0))
    texts = TextFeatures(texts.words, torch.arange(12) < lengths)
    rows, columns = torch.ones(30, 200).nonzero().unbind(1)
    found = score_pairs(scorer, images, texts, rows, columns, memory=6000)
    assert torch.equal(found, (rows + 100 * columns).float())
    assert len(sizes) > 3 and 2000 < max(sizes) <= 3000
    assert scorer.most <= 3000  # images, and texts on their way into a block


def test_pairs_that_are_none_are_refused(features):
    v, w = features(3, 4)
    one = torch.tensor([1])
    for rows, columns, message in (
        (torch.tensor([3]), one, "rows point beyond the 3 there are"),
        (one, torch.tensor([-1]), "columns point beyond the 4 there are"),
        (torch.tensor([0, 1]), one, "2 rows for 1 columns"),
    ):
        with pytest.raises(ValueError, match=message):
            score_pairs(LateInteraction(), v, w, rows, columns)
