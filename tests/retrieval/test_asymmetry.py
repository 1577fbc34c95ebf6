"""The asymmetry benchmark with scorers whose answers are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("datasets", reason="extra `recipes`")
from ascl_plugin.data import scenes
from ascl_plugin.data.readers import caption_to_image
from ascl_plugin.retrieval.asymmetry import asymmetry_benchmark


class Scorer:
    """In place of an evaluator: scores by a function of (row, text)."""

    def __init__(self, function):
        self.function = function

    def score(self, rows, texts):
        return torch.tensor([[float(self.function(row, t)) for t in texts] for row in rows])

    def pairs(self, rows, texts):
        scores = [self.function(row, t) for row, t in zip(rows, texts, strict=True)]
        return torch.tensor(scores, dtype=torch.float32)


def run(rows, function):
    scorer = Scorer(function)
    texts, index = caption_to_image(rows)
    return asymmetry_benchmark(scorer, rows, scorer.score(rows, texts), index)


@pytest.fixture(scope="module")
def rows():
    return scenes.make("test", 40)


@pytest.fixture(scope="module")
def facts(rows):
    """What every text of the rows says."""
    said = {}
    for row in rows:
        said |= dict(zip(row["captions"], map(frozenset, row["caption_facts"]), strict=True))
        for name in ("negative", "richer", "shorter"):
            said[row[name]] = frozenset(row[f"{name}_facts"])
    return said


def test_an_oracle_of_facts_is_never_fooled(rows, facts):
    """True texts score 1 + a little for each fact, false ones less than 0."""

    def oracle(row, text):
        false = facts[text] - set(row["facts"])
        return -len(false) if false else 1 + 0.01 * len(facts[text])

    found = run(rows, oracle)
    assert found["asym1_caption"] == found["asym1_richer"] == found["asym1_shorter"] == 100
    # only a caption that is true of a second scene as well can miss: the ceiling of the data
    for kind in ("caption", "richer", "shorter"):
        assert found[f"{kind}_r1"] >= 60
    assert found["shorter_r1"] <= found["caption_r1"] <= found["richer_r1"]


def test_length_alone_tells_caption_from_negative_but_not_richer(rows):
    """Scored by the number of words alone: the negative is longer than the caption and the
    shorter one, so both accuracies are 0 with "longer is better" and 100 with "shorter is better".
    Richer and negative are the same sentence but for one noun: of the same length, neither wins.
    """
    longer = run(rows, lambda row, text: len(text.split()))
    assert longer["asym1_caption"] == longer["asym1_shorter"] == longer["asym1_richer"] == 0
    shorter = run(rows, lambda row, text: -len(text.split()))
    assert shorter["asym1_caption"] == shorter["asym1_shorter"] == 100
    assert shorter["asym1_richer"] == 0
    # every image says the same: ties count against
    assert longer["caption_r1"] == longer["richer_r1"] == longer["shorter_r1"] == 0


def test_a_coin_for_each_text_gives_half(rows):
    """40 tosses: 50 %, give or take 4 deviations of 8 %; recall at chance of 2.5 %."""
    coins = {}
    rng = np.random.default_rng(0)
    found = run(rows, lambda row, text: coins.setdefault((row["image_id"], text), rng.random()))
    for name in ("asym1_caption", "asym1_richer", "asym1_shorter"):
        assert 18 < found[name] < 82
    for name in ("caption_r1", "richer_r1", "shorter_r1"):
        assert found[name] < 20


def test_by_hand_with_uneven_captions():
    """Two images; captions 0, 1 and 2 are of image 0, caption 3 of image 1.

    Pairs (caption, negative, richer, shorter): image 0 (.9, .5, .5, .6), image 1 (.4, .5, .7, .3).
    Caption > negative: image 0 only. Richer > negative: .5 is no win, image 1 only. Shorter >
    negative: image 0 only. Caption 0 of image 0 (.9 to .8) is found, that of image 1 (.4 to .6)
    not. Richer: .5 to .1 found, .7 to .7 is a tie, not found. Shorter: both found.
    """
    import datasets

    rows = datasets.Dataset.from_list(
        [
            {"captions": ["c0", "x", "y"], "negative": "n0", "richer": "r0", "shorter": "s0"},
            {"captions": ["c1"], "negative": "n1", "richer": "r1", "shorter": "s1"},
        ]
    ).add_column("number", [0, 1])
    table = {
        "c0": (0.9, 0.8), "x": (0, 1), "y": (0, 1), "c1": (0.6, 0.4), "n0": (0.5, 9),
        "n1": (9, 0.5), "r0": (0.5, 0.1), "r1": (0.7, 0.7), "s0": (0.6, 0.1), "s1": (0.1, 0.3),
    }  # fmt: skip
    assert run(rows, lambda row, text: table[text][row["number"]]) == {
        "asym1_caption": 50, "asym1_richer": 50, "asym1_shorter": 50,
        "caption_r1": 50, "richer_r1": 50, "shorter_r1": 100,
    }  # fmt: skip
