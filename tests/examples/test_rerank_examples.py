"""The re-ranking examples run as their docstrings say, and what they print is what they found."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {"rerank_faiss": ("faiss", "search"), "rerank_qdrant": ("qdrant_client", "examples")}
LINE = re.compile(r"^(\S.*?)\s{2,}((?:[\d.]+\s*){6})$", re.MULTILINE)


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("rerank_*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
def test_lists_are_reordered_and_the_table_tells_their_recall(name, example, capsys):
    """60 images, 300 texts. Recall at 1 is counted here anew, item by item."""
    found = example(name)["main"](60, 25)
    printed = dict(LINE.findall(capsys.readouterr().out))
    assert list(printed) == list(found)
    before = found["as found"]
    for line, after in found.items():
        for ids in ("i2t_ids", "t2i_ids"):
            old, new = getattr(before, ids), getattr(after, ids)
            assert old.min() >= 0
            np.testing.assert_array_equal(np.sort(old, axis=1), np.sort(new, axis=1))
            assert (line == "as found") == np.array_equal(old, new)
        i2t = sum(text // 5 == image for image, text in enumerate(after.i2t_ids[:, 0])) / 60
        t2i = sum(text // 5 == image for text, image in enumerate(after.t2i_ids[:, 0])) / 300
        recalls = [float(number) for number in printed[line].split()]
        assert recalls[::3] == [round(100 * i2t, 1), round(100 * t2i, 1)]
        assert recalls[:3] == sorted(recalls[:3]) and recalls[3:] == sorted(recalls[3:])
    assert len({*printed.values()}) > 1


@pytest.mark.parametrize("name", NEEDS)
def test_lists_are_those_of_all_scores(name, example):
    """What index and database return is what sorting all the scores gives."""
    lists = example(name)["main"](40, 10)["as found"]
    sys.path.insert(0, str(EXAMPLES))
    from made_embeddings import made_embeddings

    images, texts, _ = made_embeddings(40)
    scores = images @ texts.T
    for matrix, found in ((scores, lists.i2t_scores), (scores.T, lists.t2i_scores)):
        np.testing.assert_allclose(found, -np.sort(-matrix, axis=1)[:, :10], atol=1e-5)
