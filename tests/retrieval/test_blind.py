"""Scores without a picture."""

from __future__ import annotations

import torch

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import PooledSimilarity
from ascl_plugin.retrieval.blind import SAMPLE, blind_scores, mean_image


def test_mean_image_by_hand():
    """Place 0 is real in both, place 1 in the second alone, place 2 in none."""
    regions = torch.tensor([[[2.0], [9.0], [9.0]], [[4.0], [6.0], [9.0]]])
    mask = torch.tensor([[True, False, False], [True, True, False]])
    found = mean_image(ImageFeatures(regions, mask, torch.tensor([[1.0], [5.0]])))
    assert found.regions.tolist() == [[[3.0], [6.0], [0.0]]]
    assert found.mask.tolist() == [[True, True, False]] and found.pooled.tolist() == [[3.0]]
    whole = mean_image(ImageFeatures(regions))
    assert whole.regions.tolist() == [[[3.0], [7.5], [9.0]]]
    assert whole.mask is None and whole.pooled is None


class Encoding:
    """An evaluator of features that are given: rows and texts are their numbers."""

    def __init__(self, images, texts):
        self.images, self.texts, self.model = images, texts, PooledSimilarity()

    def encode_images(self, rows):
        return self.images[torch.tensor(rows)]

    def encode_texts(self, texts):
        return self.texts[torch.tensor([int(text) for text in texts])]


def test_the_mean_image_takes_the_place_of_the_image():
    """Two images (4, 0) and (2, 8) side by side: the mean (3, 4) has cosines .6 and .8."""
    pooled = torch.tensor([[4.0, 0.0], [2.0, 8.0]])
    evaluator = Encoding(
        ImageFeatures(pooled[:, None], None, pooled), TextFeatures(torch.eye(2)[:, None])
    )
    found = blind_scores(evaluator, [0, 1], ["1", "0"])
    torch.testing.assert_close(found, torch.tensor([0.8, 0.6]))


def test_without_vectors_scores_are_averaged_over_images():
    class Scores:
        def score(self, rows, texts):
            assert len(rows) == min(SAMPLE, 100) and len(set(rows)) == len(rows)
            return torch.tensor([[float(text) + row for text in texts] for row in rows])

    low, high = blind_scores(Scores(), list(range(100)), ["0", "7"]).tolist()
    assert high - low == 7 and 0 < low < 99
    assert blind_scores(Scores(), list(range(100)), ["0"]).tolist() == [low]
