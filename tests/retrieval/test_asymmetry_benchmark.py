"""The asymmetry benchmark with scorers whose answers are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("datasets", reason="extra `recipes`")
from ascl_plugin.asymmetry.captions.balanced import BalancedPair
from ascl_plugin.asymmetry.captions.variants import Variants
from ascl_plugin.data.readers import caption_to_image
from ascl_plugin.retrieval.asymmetry_benchmark import (
    asymmetry_benchmark,
    balanced_benchmark,
    variant_benchmark,
)


class Scorer:
    """In place of an evaluator: scores by a function of (row, text)."""

    def __init__(self, function):
        self.function = function

    def score(self, rows, texts):
        return torch.tensor([[float(self.function(row, t)) for t in texts] for row in rows])

    def pairs(self, rows, texts):
        scores = [float(self.function(row, t)) for row, t in zip(rows, texts, strict=True)]
        return torch.tensor(scores, dtype=torch.float32)


def run(rows, function):
    scorer = Scorer(function)
    texts, index = caption_to_image(rows)
    return asymmetry_benchmark(scorer, rows, scorer.score(rows, texts), index)


def test_by_hand_with_uneven_captions():
    """Two images; captions 0, 1 and 2 are of image 0, caption 3 of image 1.

    Pairs (caption, negative, richer, shorter): image 0 (.9, .5, .5, .6), image 1 (.4, .5, .7, .3).
    Caption > negative: image 0 only. Richer > negative: .5 is no win, image 1 only. Shorter >
    negative: image 0 only. Blind, by the means of both images: captions (.85, .5), negatives
    (.35, .85), richer (.3, .7), shorter (.45, .2). Caption 0 of image 0 (.9 to .8) is found, that
    of image 1 (.4 to .6) not. Richer: .5 to .1 found, .7 to .7 is a tie, not found. Shorter: both.
    """
    import datasets

    rows = datasets.Dataset.from_list(
        [
            {"captions": ["c0", "x", "y"], "negative": "n0", "richer": "r0", "shorter": "s0"},
            {"captions": ["c1"], "negative": "n1", "richer": "r1", "shorter": "s1"},
        ]
    ).add_column("number", [0, 1])
    table = {
        "c0": (0.9, 0.8), "x": (0, 1), "y": (0, 1), "c1": (0.6, 0.4), "n0": (0.5, 0.2),
        "n1": (1.2, 0.5), "r0": (0.5, 0.1), "r1": (0.7, 0.7), "s0": (0.6, 0.3), "s1": (0.1, 0.3),
    }  # fmt: skip
    assert run(rows, lambda row, text: table[text][row["number"]]) == {
        "asym1_caption": 50, "asym1_richer": 50, "asym1_shorter": 50,
        "asym1_caption_blind": 50, "asym1_richer_blind": 0, "asym1_shorter_blind": 50,
        "caption_r1": 50, "richer_r1": 50, "shorter_r1": 100,
    }  # fmt: skip


class Pairs(Scorer):
    """Also of texts with the row of each."""

    def pairs(self, rows, texts, index=None):
        return super().pairs([rows[i] for i in index], texts)


def variant(row, caption, **kinds):
    return Variants(row, caption, **{"negatives": {}, "positives": {}, "amounts": {}, **kinds})


def test_variants_by_hand():
    """A text's score is a number for each of three images, written into it.

    Row 0, caption 5: `add` 4 is beaten, `replace` 5 is a tie, which is none; the richer 4 ties with
    `add`, the shorter 6 beats it. Row 2, caption 2: `add` 3 is not beaten. Blind, by sums over the
    three images: captions 7 and 7, `add` 4 and 21, `replace` 5, richer 6, shorter 8.
    Ranks of positives: the caption of row 0 is first of (5, 1, 1), that of row 2 last of (3, 2, 2):
    a tie; the truncated caption of row 2 is second of (9, 0, 1). Score by amount: row 0 changes by
    -1 and then -3, row 2 by +1.
    """
    variants = [
        variant(
            0, "5 1 1",
            negatives={"add": "4 0 0", "replace": "5 0 0"},
            positives={"caption": "5 1 1", "phrase added": "4 1 1", "phrase removed": "6 1 1"},
            amounts={"words removed": ["5 1 1", "4 0 0", "2 0 0"]},
        ),
        variant(
            2, "3 2 2",
            negatives={"add": "9 9 3"},
            positives={"caption": "3 2 2", "truncated": "9 0 1"},
            amounts={"words removed": ["3 2 2", "0 0 3"]},
        ),
    ]  # fmt: skip
    scorer = Pairs(lambda row, text: text.split()[row["number"]])
    found = variant_benchmark(scorer, [{"number": n} for n in range(3)], variants)
    assert found["negatives"] == {
        "add": {"accuracy": 50, "blind": 50, "texts": 2},
        "replace": {"accuracy": 0, "blind": 100, "texts": 1},
        "add, richer": {"accuracy": 0, "blind": 100, "texts": 1},
        "add, shorter": {"accuracy": 100, "blind": 100, "texts": 1},
    }
    ranks = found["positives"]
    assert list(ranks) == ["caption", "phrase added", "phrase removed", "truncated"]
    assert ranks["caption"] == {"r1": 50, "r5": 100, "r10": 100, "medr": 2, "meanr": 2, "texts": 2}
    assert ranks["truncated"]["meanr"] == 2 and ranks["phrase added"]["r1"] == 100
    first, once, twice = found["amounts"]["words removed"]
    assert first == {"amount": 0, "texts": 2, "mean": 0, "deviation": 0, "falls": 0}
    assert once == {
        "amount": 1, "texts": 2, "mean": 0, "deviation": pytest.approx(2**0.5), "falls": 50,
    }  # fmt: skip
    assert twice == {"amount": 2, "texts": 1, "mean": -3, "deviation": None, "falls": 100}


def test_balanced_by_hand():
    """Scores of "x" and "y": image 0 (3, 1), image 1 (2, 2), image 2 (5, 4).

    With image 1 as B: A right, B a tie, half. With image 2 as B: A right, B wrong; that is 2.5 of
    4. With 2 as A, 0 as B and the texts exchanged: A wrong, B right. z is for 0 alone: (9, 9, 2).
    Across images: x is 3 > 2 with 0, y 2 > 1 with 1, the first set holds; x is 3 < 5, the second
    fails; y is 4 > 1 with 2, x 3 < 5, the third fails; z is 9 > 2 with 0, y 4 > 1 with 2.
    """
    sets = [
        BalancedPair("added", 0, 1, "", "x", "y"),
        BalancedPair("added", 0, 2, "", "x", "y"),
        BalancedPair("swapped", 2, 0, "", "y", "x"),
        BalancedPair("replaced noun", 0, 2, "", "z", "y"),
    ]
    table = {"x": (3, 2, 5), "y": (1, 2, 4), "z": (9, 9, 2)}
    scorer = Pairs(lambda row, text: table[text][row["number"]])
    found = balanced_benchmark(scorer, [{"number": n} for n in range(3)], sets)
    blind = {"blind": 50, "blind_groups": 0}
    assert found == {
        "added": {"pairs": 62.5, "groups": 0, "images": 50, "all": 0, **blind, "count": 2},
        "swapped": {"pairs": 50, "groups": 0, "images": 0, "all": 0, **blind, "count": 1},
        "replaced noun": {
            "pairs": 100, "groups": 100, "images": 100, "all": 100, **blind, "count": 1,
        },
    }  # fmt: skip


@given(st.lists(st.integers(0, 2), min_size=6, max_size=6), st.integers(0, 2**20))
def test_a_scorer_that_does_not_look_gets_half_the_pairs_and_no_group(values, seed):
    """Whatever it thinks of the texts, ties among them."""
    rng = np.random.default_rng(seed)
    sets = [
        BalancedPair("added", int(a), int(b), "", str(p), str(q))
        for a, b, p, q in zip(*rng.integers(0, 6, size=(4, 9)), strict=True)
    ]
    scorer = Pairs(lambda row, text: values[int(text)])
    (found,) = balanced_benchmark(scorer, [{"number": n} for n in range(6)], sets).values()
    assert (found["pairs"], found["groups"]) == (found["blind"], found["blind_groups"]) == (50, 0)
