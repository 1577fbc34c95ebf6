"""On pure noise honest protocols stay within the 99% interval of chance; the paired does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion
from ascl_plugin.metrics import protocols
from ascl_plugin.metrics.statistics import chance_interval
from ascl_plugin.registry import available

pytest.importorskip("yaml", reason="extra `recipes`")
from ascl_plugin.retrieval.evaluator import Evaluator

IMAGES, CAPTIONS, DIM, DRAWS = 100, 2, 32, 4
WAYS = [f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]
ROWS = {"captions": [["a"] * CAPTIONS] * IMAGES}
pytestmark = [
    pytest.mark.filterwarnings('ignore:protocol "paired" leaks'),
    pytest.mark.filterwarnings("ignore:rerank. caption_groups"),
]


class OnNoise(Evaluator):
    """Features that know nothing of each other, scored by a head as it is made."""

    def __init__(self, seed):
        torch.manual_seed(seed)
        model = nn.Module()
        model.fusion = CrossModalFusion(DIM, num_heads=16, local_weight=0.0)
        super().__init__(model, None, None)
        self.image = torch.randn(IMAGES, 6, DIM)
        self.word = torch.randn(IMAGES * CAPTIONS, 6, DIM)

    def encode_images(self, rows):
        return ImageFeatures(self.image, None, self.image.mean(1))

    def encode_texts(self, texts):
        return TextFeatures(self.word)

    def score(self, rows, texts):
        if not hasattr(self, "sim"):
            self.sim = super().score([None] * IMAGES, texts)
        return self.sim


@pytest.fixture(scope="module")
def evaluators():
    return [OnNoise(seed) for seed in range(DRAWS)]


def outside(results, gallery=IMAGES):
    """Recalls of all draws together that chance does not explain.

    An image has `CAPTIONS` right answers among all captions: it misses them in k draws without
    putting back; a caption has one image.
    """
    found, texts = {}, gallery * CAPTIONS
    for name in WAYS:
        k = int(name.partition("_r")[2])
        mean = np.mean([result[name] for result in results])
        if name.startswith("i2t"):
            missed = np.prod([1 - CAPTIONS / (texts - drawn) for drawn in range(k)])
            queries, chance = IMAGES, 1 - missed
        else:
            queries, chance = IMAGES * CAPTIONS, k / gallery
        low, high = chance_interval(DRAWS * queries, chance)
        if not low - 1e-9 <= mean <= high + 1e-9:
            found[name] = (round(float(mean), 2), low, high)
    return found


@pytest.mark.parametrize("method", available("rerank"))
@pytest.mark.parametrize("protocol", ["full", "coco_1k"])
def test_honest_protocols_stay_at_chance(evaluators, protocol, method, monkeypatch):
    monkeypatch.setattr(protocols, "FOLD_IMAGES", IMAGES // 5)
    results = [e.evaluate(ROWS, {"method": method}, protocol=protocol) for e in evaluators]
    gallery = IMAGES if protocol == "full" else IMAGES // 5
    for row in ("initial", "reranked"):
        assert not outside([result[row].metrics for result in results], gallery), row


def test_the_paired_protocol_does_not(evaluators):
    results = [e.evaluate(ROWS, {}, protocol="paired") for e in evaluators]
    assert outside([result["paired (leaks)"].metrics for result in results]).keys() == set(WAYS)
    for row in ("initial", "reranked"):
        assert not outside([result[row].metrics for result in results]), row


def test_noise_cannot_tell_an_oracle(evaluators):
    """Label groups say which captions belong together, not to which image: of nothing, nothing.

    With a weak signal of the pairs the same oracle is far above honest re-ranking.
    """
    results = [e.evaluate(ROWS, {}, oracle=True) for e in evaluators]
    assert not outside([result["oracle: label groups"].metrics for result in results])
    owners = torch.arange(IMAGES * CAPTIONS) // CAPTIONS
    sim = evaluators[0].score(ROWS, [])
    signal = sim + sim.std() * 1.5 * (owners == torch.arange(IMAGES)[:, None])
    found = evaluators[0].evaluate(ROWS, {}, oracle=True, sim=signal)
    assert found["oracle: label groups"].metrics["t2i_r1"] > found["reranked"].metrics["t2i_r1"] + 2


def test_a_leak_of_a_few_queries_is_found(evaluators):
    """One caption in ten that is given away is enough to leave the interval."""
    given = torch.zeros(IMAGES, IMAGES * CAPTIONS)
    given[torch.arange(0, IMAGES, 10), torch.arange(0, IMAGES * CAPTIONS, 10 * CAPTIONS)] = 9
    found = [e.evaluate(ROWS, None, sim=e.score(ROWS, []) + given) for e in evaluators]
    results = [one["initial"].metrics for one in found]
    assert {"i2t_r1", "t2i_r1"} <= outside(results).keys()
