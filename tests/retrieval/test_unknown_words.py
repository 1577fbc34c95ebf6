"""Words outside a vocabulary: counted in each encoder that has one, said once, warned of."""

from __future__ import annotations

import pytest

from ascl_plugin.retrieval.encoders import WordTransformer
from ascl_plugin.retrieval.inputs import TextInputs


def test_words_outside_the_vocabulary():
    """Of a, dog, zebra and a, one is unknown; a sentence without spaces is one word."""
    encoder = WordTransformer(["a", "dog"], width=8, num_heads=2)
    assert encoder.count_unknown(["A dog.", "a zebra"]) == (1, 4)
    assert encoder.count_unknown(["一只狗在跑"]) == (1, 1)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["a dog"], []),
        (["a"] * 11 + ["zebra"], ["val: 8.3% of 12 words are unknown to the text encoder"]),
        (["a zebra"], ["warning: val: 50.0% of 2 words are unknown to the text encoder; another "
                       "language, or other data than it was trained on?"]),
    ],
)  # fmt: skip
def test_the_share_is_said_and_above_a_tenth_warned_of(texts, said):
    lines = []
    inputs = TextInputs(WordTransformer(["a", "dog"], width=8, num_heads=2))
    inputs.say_unknown(texts, "val", lines.append)
    assert lines == said


def test_an_encoder_without_a_vocabulary_says_nothing():
    lines = []
    TextInputs(object()).say_unknown(["zebra"], "val", lines.append)
    assert not lines
