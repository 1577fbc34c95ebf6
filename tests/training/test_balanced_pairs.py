"""Balanced half-truths of a run: which pairs a batch takes, and its tensors."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest
import torch

pytest.importorskip("accelerate", reason="extra `recipes`")
from ascl_plugin.asymmetry.collator import AsymmetryCollator
from ascl_plugin.data import scenes
from ascl_plugin.training.balanced_pairs import BalancedPairs, PairCollator
from ascl_plugin.training.parsing import parse_options
from ascl_plugin.training.resolve import resolve


@pytest.fixture(scope="module")
def rows():
    return scenes.make("train", 30, 0)


@pytest.fixture(scope="module")
def pairs(rows):
    return BalancedPairs(rows, 7, ("added", "replaced noun"), 0)


def test_batches_go_through_the_list_again_and_again(pairs, rows):
    count = len(pairs.list)
    whole, rest = divmod(10 * pairs.count, count)
    assert whole == 0 or rest  # a batch lies across the end of a pass
    drawn = list(chain.from_iterable(pairs.of_batch(n) for n in range(3 * count)))
    assert Counter(drawn[:count]) == Counter(drawn[count : 2 * count]) == Counter(pairs.list)
    assert drawn[:count] != drawn[count : 2 * count]
    again = BalancedPairs(rows, 7, ("added", "replaced noun"), 0)
    assert again.of_batch(count + 1) == pairs.of_batch(count + 1)  # out of order, in a new run


def test_texts_are_those_of_the_batches(pairs):
    for batches in (1, 3, 1000):
        asked = chain.from_iterable(map(pairs.of_batch, range(batches)))
        expected = {text for pair in asked for text in (pair.with_p, pair.with_q)}
        found = list(pairs.texts(batches))
        assert len(found) == len(set(found)) and set(found) == expected


def test_a_batch_has_both_images_and_the_text_true_of_each(rows, pairs):
    seen = []

    def images(several):
        seen.append([(row["row"], row.get("mirrored")) for row in several])
        return {"pooled": torch.zeros(len(several), 1)}

    collator = AsymmetryCollator(
        lambda texts: {"count": torch.tensor([len(text) for text in texts])},
        images, "none", "none", mirror_views=True,
    )  # fmt: skip
    pair = pairs.of_batch(0)[0]
    asked = [
        {**rows[row], "row": row, "epoch": 4, "text": text}
        for row, text in ((pair.a, pair.with_p), (pair.b, pair.with_q))
    ]
    own = [{**rows[n], "row": n, "epoch": 4} for n in (pair.b, pair.a, 9)]
    batch = PairCollator(collator)([*own, *asked])
    assert batch["balanced_count"].tolist() == [len(pair.with_p), len(pair.with_q)]
    assert len(batch["count"]) == 3 and len(batch["balanced_pooled"]) == 2
    assert seen[1] == seen[0][1::-1]  # an image has one view in an epoch
    assert not any(key.startswith("balanced_") for key in PairCollator(collator)(own))


def test_a_stream_is_refused():
    with pytest.raises(ValueError, match=r"balanced_pairs.*cannot be combined"):
        resolve(parse_options(["--balanced_pairs=2", "--max_steps=1", "--train_stream=x"]))


def test_too_few_captions_are_refused(rows):
    with pytest.raises(ValueError, match=r"kinds: unknown .*'add'"):
        BalancedPairs(rows, 2, ("add",), 0)
