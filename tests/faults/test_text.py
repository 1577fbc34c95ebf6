"""Inputs made to hurt: odd and endless text, and markup."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outcomes import limits
from valid_files import karpathy, picture

from ascl_plugin.data.readers import caption_to_image, read
from ascl_plugin.retrieval.encoders import WordTransformer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a" * 10_000_000, "has 10000000 characters, 100000 at most"),
        ("half \ud800 a pair", "character 5 is half a surrogate pair"),
        ({"raw": "a" * 10**6}, "expected a string"),
    ],
    ids=["long", "surrogate", "object"],
)
def test_a_caption_that_is_refused_is_named(tmp_path, text, message):
    picture(tmp_path / "images" / "a.png")
    with (
        limits(60),
        pytest.raises(ValueError, match=r"dataset_x\.json: image a\.png: caption 1") as caught,
    ):
        read(karpathy(tmp_path, captions=("a cat", text)))
    assert message in str(caught.value) and len(str(caught.value)) < 500


ODD = (
    "nul \0 in it", "\u202ertl \u05d0\u05d1\u05d2", "e\u0301\u0301\u0301", "zero\u200bwidth",
    "\u200b", "line\u2028parts\x85of\x0cit", "🧑‍🚀🏳️‍🌈", "x" * 100_000,
    "a " * 50_000, "<script>alert(1)</script>",
)  # fmt: skip


def test_unusual_captions_come_through_in_one_line(tmp_path):
    picture(tmp_path / "images" / "a.png")
    found = read(karpathy(tmp_path, captions=ODD))["train"][0]["captions"]
    assert found[5] == "line parts of it"
    assert found[:5] + found[6:] == [text.strip() for text in ODD[:5] + ODD[6:]]


def test_a_caption_file_has_lines_that_end_with_a_newline_alone(tmp_path):
    np.save(tmp_path / "train_ims.npy", np.ones((2, 1, 4), np.float32))
    (tmp_path / "train_caps.txt").write_text("one\u2028and\x0cone\r\ntwo\x85and two\n", newline="")
    assert [row["captions"] for row in read(tmp_path)["train"]] == [
        ["one and one"], ["two and two"],
    ]  # fmt: skip


ANY = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(texts=st.lists(st.one_of(ANY, st.sampled_from(ODD)), min_size=1, max_size=5))
def test_any_captions_have_a_word_each(texts):
    tokens = WordTransformer(["a", "cat"], width=8).tokenize(texts)
    assert tokens["attention_mask"].any(1).all() and tokens["input_ids"].shape[1] <= 64


def test_two_hundred_thousand_captions_of_one_image(tmp_path):
    picture(tmp_path / "images" / "a.png")
    karpathy(tmp_path, captions=[f"caption {i}" for i in range(200_000)])
    with limits(60):
        split = read(tmp_path)["train"]
        texts, owner = caption_to_image(split)
    assert len(texts) == len(owner) == 200_000 and not owner.any()
