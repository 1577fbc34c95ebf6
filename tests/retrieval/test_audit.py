"""The audit: honest scorers pass, and each way of seeing the pairing is found out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from ascl_plugin.fusion import CrossModalFusion, LateInteraction, PooledSimilarity
from ascl_plugin.retrieval.audit import SAMPLE, AuditError, SplitAudit, audit
from ascl_plugin.scoring.matrix import score_matrix
from ascl_plugin.scoring.paired_protocol import paired_matrix


@pytest.mark.parametrize(
    "scorer",
    [
        CrossModalFusion(8, 2),
        CrossModalFusion(8, 2, attention="parameter-free"),
        LateInteraction(),
        PooledSimilarity(),
        PooledSimilarity(image="pooled"),
    ],
)
def test_honest_scorers_pass(scorer, features):
    """And so do their scores in blocks, some prepared once for many."""
    assert 0 <= audit(scorer, *features(10, 10, dim=8)) < 1e-5
    audit(partial(score_matrix, scorer, memory=2**12), *features(10, 10, dim=8))


def positional(images, texts):
    """Looks for the pairing by position."""
    sim = PooledSimilarity()(images, texts)
    return sim + 0.01 * torch.eye(*sim.shape)


def test_a_score_by_position_is_found_out(features):
    with pytest.raises(AuditError, match=r"shuffling images and texts changes scores by 0.01"):
        audit(positional, *features(10, 10, dim=8))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_score_that_looks_at_the_rest_of_the_batch_is_found_out(axis, features):
    """A softmax over the gallery shuffles with it, but a pair alone gets 1."""
    with pytest.raises(AuditError, match=r"score 1.0000 alone and 0.\d+ in the batch"):
        audit(lambda v, w: PooledSimilarity()(v, w).softmax(axis), *features(10, 10, dim=8))


def test_a_matrix_of_another_shape_or_of_nan_is_found_out(features):
    with pytest.raises(AuditError, match=r"shape \(10, 9\) for 10 images, 10 texts"):
        audit(lambda v, w: PooledSimilarity()(v, w)[:, :-1], *features(10, 10, dim=8))
    with pytest.raises(AuditError):
        audit(lambda v, w: PooledSimilarity()(v, w) * torch.nan, *features(10, 10, dim=8))


class Split:
    """An evaluator of 40 images with 2 captions each; `rest` is what a batch adds to features."""

    def __init__(self, features, fusion=None, rest=None):
        self.image, self.text = features(40, 80, dim=8)
        self.model = SimpleNamespace(fusion=fusion or CrossModalFusion(8, 2))
        self.rest = rest

    def encode_images(self, rows):
        found = self.image[torch.tensor(rows)]
        if self.rest == "images":
            found = replace(found, regions=found.regions - found.regions.mean(0))
        return found

    def encode_texts(self, texts):
        found = self.text[torch.tensor([int(text) for text in texts])]
        if self.rest == "texts":
            found = replace(found, words=found.words - found.words.mean(0))
        return found

    def pairs(self, rows, texts):
        return self.model.fusion(self.encode_images(rows), self.encode_texts(texts)).diagonal()

    def audit(self, seed=0):
        texts = [str(t) for t in range(80)]
        return SplitAudit(self, list(range(40)), texts, torch.arange(80) // 2, seed)

    def score(self):
        images, texts = self.encode_images(range(40)), self.encode_texts(range(80))
        return score_matrix(self.model.fusion, images, texts)


def test_a_split_and_its_matrix_pass(features):
    split = Split(features)
    audit_ = split.audit()
    audit_.check_scorer()
    audit_.check_matrix(split.score())
    report = audit_.report()
    assert (report["images"], report["texts"]) == (SAMPLE, SAMPLE)
    assert 0 < report["largest_difference"] < 1e-5
    assert [caption // 2 for caption in audit_.captions] == audit_.images
    assert len(set(audit_.images)) == SAMPLE
    assert split.audit().captions == audit_.captions != split.audit(seed=1).captions


@pytest.mark.parametrize("rest", ["images", "texts"])
def test_an_encoder_that_looks_at_its_batch_is_found_out(rest, features):
    split = Split(features, rest=rest)
    with pytest.raises(AuditError, match=r"image \d+ and text \d+ score .* in the matrix"):
        split.audit().check_matrix(split.score())


def test_a_scorer_that_leaks_is_found_out_before_the_matrix(features):
    with pytest.raises(AuditError, match="shuffling images and texts changes scores"):
        Split(features, positional).audit().check_scorer()


@pytest.mark.filterwarnings('ignore:protocol "paired" leaks')
def test_a_matrix_of_paired_or_of_other_scores_is_found_out(features):
    split = Split(features)
    owners = torch.arange(80) // 2
    images, texts = split.encode_images(range(40)), split.encode_texts(range(80))
    head = split.model.fusion
    leaking = paired_matrix(head, images, texts, owners)
    for sim in (leaking, split.score().flip(1), split.score() * torch.nan):
        with pytest.raises(AuditError, match="in the matrix: the score depends on more than them"):
            split.audit().check_matrix(sim)
    added = split.score() + 0.01 * (owners == torch.arange(40)[:, None])  # right pairs alone
    with pytest.raises(AuditError, match="in the matrix"):
        split.audit().check_matrix(added)
