"""Contests of texts from files, with scorers whose answers are known beforehand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("datasets", reason="extra `recipes`")
from ascl_plugin.retrieval.asymmetry_benchmark import balanced_benchmark
from ascl_plugin.retrieval.contest_benchmark import another, contest_benchmark, twin_pairs


class Table:
    """In place of an evaluator: a text is its scores with images a, b and c."""

    def score(self, rows, texts):
        return torch.tensor([[self._one(row, text) for text in texts] for row in rows])

    def pairs(self, rows, texts, index):
        return torch.tensor([self._one(rows[i], t) for i, t in zip(index, texts, strict=True)])

    def _one(self, row, text):
        return float(text.split()["abc".index(row["image_id"])])


def entry(image, true, false, **more):
    return {"image_id": image, "true": true, "false": false, **more}


def test_by_hand():
    """Scores of texts with a and b; `another` of two images is the other one.

    Kind one. a: 3 > 2, and 5 - 5 = 0 with b: margins 1 > 0. b: both true texts, 4 and 6, must beat
    5: not so, -1; with a it is min(9, 1) - 2 = -1, a tie. Accuracy 1 of 2, balanced 1.5 of 2.
    Blind, by sums over a and b: 8 > 7 is right; min(13, 7) > 7 is a tie: 1 of 2.
    Kind two, one image: 2 > 1 and richer 3 > 2 hold, the second has no richer text: 2 > 0.
    Blind 3 > 8 and 3 > 0. No other image, so no balanced figure; ordered 1 of 1.
    """
    kinds = {
        "one": [entry("a", ["3 5"], ["2 5"]), entry("b", ["9 4", "1 6"], ["2 5"])],
        "two": [
            entry("a", ["2 1"], ["1 7"], richer="3 0"),
            entry("a", ["2 1"], ["0 0"], richer=None),
        ],
    }
    assert contest_benchmark(Table(), kinds) == {
        "one": {"accuracy": 50, "blind": 50, "balanced": 75, "texts": 2},
        "two": {"accuracy": 100, "blind": 50, "ordered": 100, "texts": 2},
    }


def test_winoground_by_hand():
    """Scores of the first set: (5, 4) with a, (2, 3) with b; of the second (2, 1), (6, 7).

    First: text score 5 > 4, 3 > 2; image score 5 > 2, 3 < 4: not. Second: text score 2 > 1, 7 > 6;
    image score 2 < 6: not. `pairs` 4 of 4. With one more set, (1, 0) and (0, 1), all hold.
    """
    sets = [("5 2 0", "4 3 0"), ("2 6 0", "1 7 0"), ("1 0 0", "0 1 0")]
    rows = [
        entry(image, [own], [other])
        for pair in sets
        for image, own, other in zip("ab", pair, reversed(pair), strict=True)
    ]
    found = balanced_benchmark(Table(), *twin_pairs({"examples": rows}))["examples"]
    third = pytest.approx(100 / 3)
    assert found == {
        "pairs": 100, "groups": 100, "images": third, "all": third, "blind": 50,
        "blind_groups": 0, "count": 3,
    }  # fmt: skip


@given(st.lists(st.integers(0, 3), min_size=4, max_size=4), st.lists(st.integers(0, 3)))
def test_a_scorer_that_does_not_look_has_half_of_the_balanced_contests(values, texts):
    """Whatever it thinks of the texts."""
    texts = [*texts, 0, 1]
    kinds = {
        "k": [
            entry("abc"[n % 3], [f"{values[t]} {values[t]} {values[t]}"], ["1 1 1"])
            for n, t in enumerate(texts)
        ]
    }
    found = contest_benchmark(Table(), kinds)["k"]
    assert found["balanced"] == 50 and found["accuracy"] == found["blind"]


def test_another_image_is_another_one():
    images = [0, 0, 0, 1, 2, 0]
    found = another(images)
    assert all(a != b for a, b in zip(images, found, strict=True)) and found == another(images)
    assert another([4, 4]) == [4, 4]
