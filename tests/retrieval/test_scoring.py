"""Tiles against the whole: same scores, same order, never more than a tile at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion
from ascl_plugin.retrieval.scoring import score_matrix


def make(images=7, texts=9, masked=True, tail=True):
    generator = torch.Generator().manual_seed(images * 100 + texts)
    lengths = torch.randint(1, 6, (texts, 1), generator=generator)
    mask = torch.arange(5) < lengths if tail else torch.arange(5) >= 5 - lengths
    return (
        ImageFeatures(torch.randn(images, 3, 4), None, torch.randn(images, 4)),
        TextFeatures(torch.randn(texts, 5, 4), mask if masked else None),
    )


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 7), st.integers(1, 9), st.integers(1, 8), st.integers(1, 10), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_tiles_equal_the_whole(images, texts, rows, columns, masked, tail):
    """Also where padding stands before the words."""
    v, w = make(images, texts, masked, tail)
    head = CrossModalFusion(4, 2)
    found = score_matrix(head, v, w, (rows, columns))
    torch.testing.assert_close(found, head(v, w).detach(), rtol=0, atol=1e-5)


def test_a_models_fusion_is_its_scorer_and_no_graph_is_kept():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fusion = CrossModalFusion(4, 2)

    model = Model()
    v, w = make()
    found = score_matrix(model, v, w)
    assert not found.requires_grad and found.dtype == torch.float32
    torch.testing.assert_close(found, model.fusion(v, w).detach(), rtol=0, atol=1e-5)


def test_never_more_than_a_tile_and_no_more_padding_than_needed():
    """Texts of 5, 1, 2, 1 words in tiles of two: the two short ones are cut to one word."""
    seen = []

    def scorer(images, texts):
        seen.append((len(images), len(texts), texts.words.shape[1]))
        # image number plus a hundred times text number, to see the order
        return images.pooled[:, :1] + 100 * texts.words[:, 0, :1].T

    words = torch.arange(4.0)[:, None, None].expand(4, 5, 2)
    texts = TextFeatures(words, torch.arange(5) < torch.tensor([[5], [1], [2], [1]]))
    images = ImageFeatures(torch.zeros(3, 1, 2), None, torch.arange(3.0)[:, None].expand(3, 2))
    found = score_matrix(scorer, images, texts, (2, 2), progress=True)
    assert found.tolist() == [[i + 100 * t for t in range(4)] for i in range(3)]
    assert seen == [(2, 2, 1), (1, 2, 1), (2, 2, 5), (1, 2, 5)]


def test_a_text_of_padding_alone_is_scored():
    v, w = make(2, 3)
    texts = TextFeatures(w.words, torch.zeros(3, 5, dtype=torch.bool))
    assert score_matrix(CrossModalFusion(4, 2), v, texts).isfinite().all()


@pytest.mark.parametrize("tile", [(0, 4), (4, -1)])
def test_a_tile_without_extent_is_refused(tile):
    with pytest.raises(ValueError, match=r"tile must be .* at least 1 each, got \("):
        score_matrix(CrossModalFusion(4, 2), *make(), tile)
