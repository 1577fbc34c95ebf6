"""Blocks against the whole: same scores, same order, within the tile or the budget asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, LateInteraction, PooledSimilarity
from ascl_plugin.scoring.blocks import PreparedScorer, device_of
from ascl_plugin.scoring.matrix import score_matrix
from ascl_plugin.scoring.pairs import score_pairs
from ascl_plugin.scoring.search import search

SCORERS = [
    CrossModalFusion(4, 2),
    CrossModalFusion(4, 2, attention="parameter-free"),
    CrossModalFusion(4, 2, local_weight=1.0),
    LateInteraction(),
    PooledSimilarity(),
]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 7), st.integers(0, 9),
    st.none() | st.tuples(st.integers(1, 8), st.integers(1, 10)),
    st.booleans(), st.booleans(), st.sampled_from([1, 2**12, 2**15, 2**30]),
    st.sampled_from(SCORERS),
)  # fmt: skip
def test_blocks_equal_the_whole(features, images, texts, tile, masked, tail, memory, scorer):
    """Also where padding stands before the words, and where nothing fits the budget."""
    v, w = features(images, texts, masked, tail)
    found = score_matrix(scorer, v, w, tile, memory=memory)
    assert found.shape == (images, texts)
    if images and texts:
        torch.testing.assert_close(found, scorer(v, w).detach(), rtol=0, atol=1e-5)


def test_a_models_fusion_is_its_scorer_and_no_graph_is_kept(features):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fusion = CrossModalFusion(4, 2)

    model = Model()
    v, w = features()
    found = score_matrix(model, v, w)
    assert not found.requires_grad and found.dtype == torch.float32
    torch.testing.assert_close(found, model.fusion(v, w).detach(), rtol=0, atol=1e-5)


def test_never_more_than_a_tile_and_no_more_padding_than_needed(numbered):
    """Texts of 5, 1, 2, 1 words in tiles of two: the short ones together, each cut to its length.

    Scores are image number plus a hundred times text number: each stands where it belongs.
    """
    seen = []

    def scorer(images, texts):
        seen.append((len(images), len(texts), texts.words.shape[1]))
        return images.pooled[:, :1] + 100 * texts.words[:, 0, :1].T

    images, texts = numbered(3, 4, 5)
    texts = TextFeatures(texts.words, torch.arange(5) < torch.tensor([[5], [1], [2], [1]]))
    found = score_matrix(scorer, images, texts, (2, 2))
    assert found.tolist() == [[i + 100 * t for t in range(4)] for i in range(3)]
    assert seen == [(2, 2, 1), (2, 1, 2), (2, 1, 5), (1, 2, 1), (1, 1, 2), (1, 1, 5)]


def test_within_the_budget_every_item_is_prepared_once(numbered, counting):
    """But for one image and one text that were measured, and a text a piece of texts."""
    scorer = counting()
    images, texts = numbered(8, 32)
    score_matrix(scorer, images, texts)
    assert sorted(scorer.prepared["images"]) == [0, *range(8)]
    assert len(scorer.prepared["texts"]) == 32 + 1 + 32 and set(scorer.prepared["texts"]) == set(
        range(32)
    )


def test_what_is_prepared_stays_within_the_budget(numbered, counting):
    """Images of 24 bytes and texts of 8: 300 and 900 of them in a budget of 2400 bytes.

    A piece is 9 texts of 72 bytes, 16 pieces half the budget: images are prepared 900 / 144 times.
    """
    scorer = counting()
    images, texts = numbered(300, 900)
    found = score_matrix(scorer, images, texts, memory=2400)
    assert torch.equal(found, images.pooled[:, :1] + 100 * texts.words[:, 0, :1].T)
    # two such halves at a time would be 2300 bytes
    assert 1150 <= scorer.most <= 1800
    assert scorer.prepared["images"].count(7) == 7


def test_a_few_texts_far_longer_than_the_others_do_not_burst_the_budget(numbered, counting):
    """Twelve texts of 100 words of 8 bytes among 288 of one word: they alone take 9600 of 4000."""
    scorer = counting()
    images, texts = numbered(10, 300, 100)
    lengths = torch.ones(300, 1)
    lengths[17:29] = 100
    texts = TextFeatures(texts.words, torch.arange(100) < lengths)
    found = score_matrix(scorer, images, texts, memory=4000)
    assert torch.equal(found, images.pooled[:, :1] + 100 * texts.words[:, 0, :1].T)
    assert scorer.most <= 4000


def test_scorers_that_prepare_nothing_get_blocks_a_cache_holds():
    """36 regions of width 256, 20 words: no block may need 32 MiB for all products, twice."""
    seen = []

    def scorer(images, texts):
        seen.append(len(images) * len(texts))
        return torch.zeros(len(images), len(texts))

    images = ImageFeatures(torch.zeros(100, 36, 256))
    score_matrix(scorer, images, TextFeatures(torch.zeros(400, 20, 256)))
    assert sum(seen) == 40_000
    assert 1000 < max(seen) <= 32 * 2**20 / (2 * (36 * 20 + 256) * 4)


def test_the_device_is_that_of_the_weights_else_of_the_images():
    meta, cpu = torch.device("meta"), torch.device("cpu")
    assert device_of(nn.Linear(1, 1, device=meta)) == meta
    assert device_of(nn.BatchNorm1d(1, affine=False, device=meta)) == meta
    assert device_of(LateInteraction(), meta) == meta
    assert device_of(print) == cpu
    images = ImageFeatures(torch.zeros(1, 1, 1, device=meta))
    assert PreparedScorer(print, images).device == meta


def test_the_bar_counts_pairs(features, tmp_path, monkeypatch):
    tqdm = pytest.importorskip("tqdm.auto", reason="extra `recipes`")
    bars = []

    class Bar(tqdm.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            bars.append(self)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    v, w = features()
    score_matrix(CrossModalFusion(4, 2), v, w, (2, 3))
    assert not bars
    score_matrix(CrossModalFusion(4, 2), v, w, (2, 3), progress=True)
    assert [(bar.n, bar.initial, bar.total) for bar in bars] == [(63, 0, 63)]

    stops = [True]

    def scorer(images, texts):
        if stops and len(images) == 1:
            raise KeyboardInterrupt
        return torch.zeros(len(images), len(texts))

    path = tmp_path / "sims.npy"
    with pytest.raises(KeyboardInterrupt):
        score_matrix(scorer, v, w, (6, 9), path=path)
    stops.clear()
    score_matrix(scorer, v, w, (6, 9), progress=True, path=path)
    assert (bars[-1].n, bars[-1].initial, bars[-1].total) == (63, 54, 63)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": (0, 4)}, r"tile must be .* at least 1 each, got \("),
        ({"tile": (4, -1)}, r"tile must be .* at least 1 each, got \("),
        ({"tile": 8}, r"tile must be \(images, texts\) of at least 1 each, got 8"),
        ({"tile": (8,)}, r"tile must be \(images, texts\) of at least 1 each, got \(8,\)"),
        ({"topk": 0}, "topk must be at least 1, got 0"),
        ({"memory": 0}, "memory must be a number of bytes, got 0"),
        ({"processes": "all"}, "processes must be one of one, split, own, got 'all'"),
        ({"topk": 1, "path": "sims.npy"}, "sims.npy: lists are written as .npz"),
        ({"processes": "own", "path": "sims.npy"}, "path goes with"),
    ],
)
def test_options_that_make_no_sense_are_refused(features, options, message):
    with pytest.raises(ValueError, match=message):
        score_matrix(CrossModalFusion(4, 2), *features(), **options)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (
            {"images": torch.zeros(7, 3, 4)},
            r"images must be ImageFeatures.* Tensor of shape \(7,",
        ),
        (
            {"texts": np.zeros((9, 5, 4))},
            r"texts must be TextFeatures.* ndarray of shape \(9, 5",
        ),
        ({"texts": ["a text"]}, "texts must be TextFeatures, got list"),
        ({"model": 3}, r"expected a scorer \(images, texts\) -> \(I, T\).*got int"),
    ],
)
def test_what_are_no_features_or_no_scorer_is_refused(features, replaced, message):
    v, w = features()
    given = {"model": CrossModalFusion(4, 2), "images": v, "texts": w} | replaced
    with pytest.raises(TypeError, match=message):
        score_matrix(**given)
    if "model" not in replaced:
        first = torch.tensor([0])
        with pytest.raises(TypeError, match=message):
            score_pairs(**given, rows=first, columns=first)
        with pytest.raises(TypeError, match=message):
            search(**given)
