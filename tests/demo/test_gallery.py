"""What the pages show: exact scores, honest re-ranking, marks, attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("datasets", reason="extra `recipes`")
from ascl_plugin.demo.gallery import Hit, both
from ascl_plugin.reranking import rerank
from ascl_plugin.scoring.matrix import score_matrix

from .conftest import make_gallery, make_model


def order(scores, count=10):
    return scores.argsort(descending=True, stable=True)[:count].tolist()


def items(hits):
    return [hit.item for hit in hits]


def test_moves_and_marks_by_hand():
    before, after = torch.tensor([0.5, 0.9, 0.1, 0.7]), torch.tensor([0.9, 0.5, 0.1, 0.7])
    first, then = both(before, after, {0}, 3)
    assert items(first) == [1, 3, 0] and [hit.moved for hit in first] == [0, 0, 0]
    assert [hit.moved for hit in then] == [2, 0, -2] and items(then) == [0, 3, 1]
    assert then[0] == Hit(0, pytest.approx(0.5), 2, True)  # the score is the one before
    assert [hit.right for hit in first] == [False, False, True]


def test_a_caption_of_the_split_is_its_column(gallery):
    sim = gallery.evaluator.score(gallery.rows, gallery.texts)
    before, after = gallery.pictures(gallery.texts[17])
    assert items(before) == order(sim[:, 17])
    assert items(after) == order(rerank(sim, k=20).t2i[:, 17])
    assert {hit.item for hit in both(sim[:, 17], sim[:, 17], {3}, 30)[0] if hit.right} == {3}
    assert {hit.item for hit in gallery.pictures(gallery.texts[17], 30)[0] if hit.right} == {3}


def test_typed_words_are_scored_with_every_picture(gallery):
    text = "a red car with a blue hat"
    assert text not in gallery.texts
    model = gallery.evaluator.model
    column = score_matrix(model, gallery.images, gallery.evaluator.encode_texts([text]))[:, 0]
    before, after = gallery.pictures(text)
    assert items(before) == order(column)
    assert [hit.score for hit in before] == pytest.approx(column.sort(descending=True)[0][:10])
    # by each picture's mean of its 16 highest scores with captions, and no other query
    bias = gallery.sim.topk(16, dim=1).values.mean(1)
    assert items(after) == order(column - 0.75 * bias)
    assert not any(hit.right for hit in before + after)
    assert gallery.sim.shape == (30, 150)  # nothing was added for good


def test_captions_of_a_picture(gallery):
    before, after = gallery.captions(2, 150)
    assert items(before) == order(gallery.sim[2], 150)
    assert items(after) == order(gallery.reranked.i2t[2], 150)
    assert {hit.item for hit in before if hit.right} == set(range(10, 15))


def test_a_pair_is_scored_as_in_the_matrix(gallery):
    assert gallery.score(4, gallery.texts[9]) == pytest.approx(float(gallery.sim[4, 9]), abs=1e-5)


def test_attention_names_words_and_places(gallery):
    found = gallery.attention(2, "a zebra with a red car")
    assert found.words == ["a", "[UNK]", "with", "a", "red", "car"]
    assert found.words_to_regions.shape == (6, 9) and found.regions_to_words.shape == (9, 6)
    for weights in (found.words_to_regions, found.regions_to_words):
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert found.regions.boxes[5] == pytest.approx(np.array([2, 1, 1, 1]) / 3)


@pytest.mark.parametrize("fusion", ["pooled", "late"])
def test_a_fusion_that_does_not_attend(rows, fusion):
    gallery = make_gallery(make_model(fusion), rows.select(range(3)))
    assert gallery.attention(0, "a") is None
    assert len(gallery.pictures("a red car")[1]) == 3
