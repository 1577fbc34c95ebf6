"""Two stages: the candidates of an index, and of those exactly what the scorer says."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, LateInteraction, PooledSimilarity
from ascl_plugin.scoring.matrix import score_matrix
from ascl_plugin.scoring.search import (
    candidate_pairs,
    image_embeddings,
    list_recall,
    search,
    text_embeddings,
)

needs_faiss = pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="needs faiss: extra `search`"
)
SCORERS = [
    CrossModalFusion(8, 2),
    CrossModalFusion(8, 2, attention="parameter-free"),
    LateInteraction(),
    PooledSimilarity(),
]


def aligned(images=30, texts=70, dim=8, spread=0.5, seed=0):
    """Text t is about image t mod I: its words and that image's regions lie about one point."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    points = normal(images, 1, dim)
    regions = points + spread * normal(images, 4, dim)
    words = points[torch.arange(texts) % images] + spread * normal(texts, 6, dim)
    mask = torch.arange(6) < torch.randint(1, 7, (texts, 1), generator=generator)
    return ImageFeatures(regions, None, regions.mean(1)), TextFeatures(words, mask)


def test_embeddings_are_means_of_what_is_real_at_unit_length(monkeypatch):
    monkeypatch.setattr("ascl_plugin.scoring.search.CHUNK", 50)
    regions = torch.tensor([[[2.0, 0], [0, 2]], [[0, 4], [9, 9]], [[0, 0], [0, 0]]])
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    images = ImageFeatures(regions, mask, torch.tensor([[3.0, 4], [0, 1], [1, 0]]))
    half = 0.5**0.5
    expected = torch.tensor([[half, half], [0, 1], [0, 0]])
    torch.testing.assert_close(image_embeddings(images), expected)
    torch.testing.assert_close(
        image_embeddings(images, "pooled"), torch.tensor([[0.6, 0.8], [0, 1], [1, 0]])
    )
    torch.testing.assert_close(text_embeddings(TextFeatures(regions, mask)), expected)
    with pytest.raises(ValueError, match="'regions' or 'pooled', got 'words'"):
        image_embeddings(images, "words")
    with pytest.raises(ValueError, match="images without pooled"):
        image_embeddings(ImageFeatures(regions), "pooled")


@needs_faiss
@settings(deadline=None, max_examples=25)
@given(st.integers(1, 20), st.integers(1, 30), st.integers(1, 8), st.data())
def test_results_are_the_best_of_the_candidates_of_both_directions(images, texts, count, data):
    """Against the matrix in which every pair that is no candidate is -inf."""
    k = data.draw(st.integers(1, count))
    v, w = aligned(images, texts, seed=data.draw(st.integers(0, 99)))
    scorer = data.draw(st.sampled_from(SCORERS))
    near = image_embeddings(v) @ text_embeddings(w).T
    allowed = torch.zeros(images, texts, dtype=torch.bool)
    allowed.scatter_(1, near.topk(min(count, texts), dim=1).indices, True)
    allowed.scatter_(0, near.topk(min(count, images), dim=0).indices, True)
    sim = score_matrix(scorer, v, w).masked_fill(~allowed, -torch.inf)
    found = search(scorer, v, w, count, k)
    for ids, scores, matrix in (
        (found.i2t_ids, found.i2t_scores, sim),
        (found.t2i_ids, found.t2i_scores, sim.T),
    ):
        assert ids.dtype == torch.int64 and ids.shape == (len(matrix), min(k, matrix.shape[1]))
        expected = matrix.topk(ids.shape[1]).values
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
        there = ids >= 0
        assert torch.equal(there, expected > -torch.inf)
        # a number that differs by rounding may change places with its neighbour
        again = matrix.gather(1, ids.clamp_min(0))
        torch.testing.assert_close(again[there], scores[there], rtol=0, atol=1e-5)


@needs_faiss
@pytest.mark.parametrize(
    ("index", "options"), [("HNSW8", "efSearch=64"), ("IVF2,Flat", "nprobe=2"), ("Flat", "")]
)
def test_any_index_of_faiss(index, options):
    v, w = aligned(90, 90)
    found = search(PooledSimilarity(), v, w, 40, 5, index=index, index_options=options)
    exact = score_matrix(PooledSimilarity(), v, w, topk=5)
    assert list_recall(found.i2t_ids, exact.i2t_ids) > 95
    assert list_recall(found.t2i_ids, exact.t2i_ids) > 95


@needs_faiss
def test_an_index_that_searches_one_cell_leaves_empty_slots():
    """Five axes, five cells, each with one item: a query for three gets one."""
    axes = torch.eye(8)[:5]
    rows, columns = candidate_pairs(axes, axes, 3, "IVF5,Flat")
    assert rows.tolist() == columns.tolist() == [0, 1, 2, 3, 4]
    v, w = aligned(5, 5)
    found = search(LateInteraction(), v, w, 3, 2, embeddings=(axes, axes), index="IVF5,Flat")
    sim = LateInteraction()(v, w)
    for ids, scores in ((found.i2t_ids, found.i2t_scores), (found.t2i_ids, found.t2i_scores)):
        assert ids.tolist() == [[i, -1] for i in range(5)]
        torch.testing.assert_close(scores[:, 0], sim.diagonal(), rtol=0, atol=1e-5)
        assert (scores[:, 1] == -torch.inf).all()


@needs_faiss
def test_all_candidates_find_all_and_blind_ones_few():
    v, w = aligned()
    head = CrossModalFusion(8, 2)
    exact = score_matrix(head, v, w, topk=5)
    assert list_recall(search(head, v, w, 99, 5).i2t_ids, exact.i2t_ids) == 100
    noise = torch.randn(30, 8), torch.randn(70, 8)
    blind = search(head, v, w, 5, 5, embeddings=noise)
    assert list_recall(blind.i2t_ids, exact.i2t_ids) < 60
    assert list_recall(search(head, v, w, 5, 5).i2t_ids, exact.i2t_ids) > 60


def test_recall_of_lists_by_hand():
    """Of {1, 2} and {3, 4}: the first list has 2, the second both."""
    exact = torch.tensor([[1, 2], [3, 4]])
    assert list_recall(torch.tensor([[2, 9, -1], [4, 3, 0]]), exact) == 75


@needs_faiss
def test_what_makes_no_sense_is_refused():
    v, w = aligned(4, 6)
    for options, message in (
        ({"candidates": 3, "topk": 4}, "topk must be from 1 to candidates, got 4 of 3"),
        ({"topk": 0}, "topk must be from 1 to candidates, got 0"),
        ({"embeddings": (torch.zeros(4, 2), torch.zeros(6, 3))}, r"\(4, 2\) and \(6, 3\)"),
        ({"embeddings": (torch.zeros(5, 2), torch.zeros(6, 2))}, "for 4 images"),
        ({"index": "Flatt"}, "faiss cannot make an index 'Flatt'"),
        ({"index": "IVF7,Flat"}, "faiss cannot make an index 'IVF7,Flat'"),
        ({"index_options": "nprobes=1"}, "faiss cannot make an index 'Flat' 'nprobes=1'"),
    ):
        with pytest.raises(ValueError, match=message):
            search(LateInteraction(), v, w, **options)


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r'pip install "ascl-plugin\[search\]"'):
        search(LateInteraction(), *aligned())
