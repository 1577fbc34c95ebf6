"""Inserted negatives: one phrase more, of a thing in no caption of the image, always the same."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("textblob", reason="extra `words`")
from ascl_plugin.asymmetry import AsymmetryCollator, PhraseBank

CAPTIONS = [
    ["A man in a red shirt rides a brown horse on the beach .", "A rider on a horse"],
    ["Two dogs play with a tennis ball in the snow.", "a bowl of soup, and a bird"],
    ["Three women drink some wine at a small table", "Men's shoes beside a green umbrella"],
]
BANK = PhraseBank(CAPTIONS)
HEADS = dict(BANK.phrases)


def test_the_bank_holds_what_another_sentence_can_take_in():
    """Things introduced by an article or a number: no "the beach", no half of "a bowl of soup"."""
    assert BANK.phrases == [
        ("a man", "man"), ("a brown horse", "horse"), ("a rider", "rider"), ("a horse", "horse"),
        ("two dogs", "dog"), ("a tennis ball", "ball"), ("a bird", "bird"),
        ("three women", "woman"), ("some wine", "wine"), ("a small table", "table"),
        ("a green umbrella", "umbrella"),
    ]  # fmt: skip


@given(row=st.integers(0, 2), place=st.integers(0, 1), seed=st.integers(0, 2**32))
def test_a_negative_is_its_caption_and_one_absent_thing(row, place, seed):
    """The caption is left whole, and the head noun of what is added is in none of the image's."""
    caption = CAPTIONS[row][place]
    negative = BANK.insert(caption, CAPTIONS[row], np.random.default_rng(seed))
    assert negative == BANK.insert(caption, CAPTIONS[row], np.random.default_rng(seed))
    added = [
        phrase for phrase in HEADS for joiner in ("and", "with")
        if re.sub(f" {joiner} {phrase}", "", negative, count=1) == caption
    ]  # fmt: skip
    assert len(added) == 1
    head = HEADS[added[0]]
    assert head not in " ".join(CAPTIONS[row]).lower()
    assert not (row in (0, 2) and head in ("man", "rider", "woman"))  # names of a person


@pytest.mark.parametrize(
    ("text", "places"),
    [
        (
            "A dog plays with a ball in the snow .",
            {"a ball and X in the snow .", "the snow with X ."},
        ),
        ("A dog is running", {"A dog is running with X"}),
        ("a bowl of soup on the left", {"soup and X on the left"}),
        ("a red", {"a red and X"}),
        ("Running !", {"Running with X !"}),
    ],
)
def test_places(text, places):
    """Behind a noun phrase that is over, never between a subject and its verb; else at the end."""
    found = {f"{text[:end]} {joiner} X{text[end:]}" for end, joiner in BANK._places(text)}
    assert len(found) == len(places)
    assert all(any(one.endswith(place) for one in found) for place in places), found


def test_no_phrase_left_is_an_error_and_a_rare_one_is_found():
    everything = " ".join(HEADS)
    with pytest.raises(ValueError, match="no noun phrase of another image can be inserted"):
        BANK.draw([everything], np.random.default_rng(0))
    many = PhraseBank([["a horse"]] + [[f"a dog and a cat {n}"] for n in range(300)])
    assert many.draw(["a dog and a cat"], np.random.default_rng(0)) == "a horse"
    with pytest.raises(ValueError, match="none of 1 captions holds a noun phrase"):
        PhraseBank([["the sky is blue"]])


@pytest.mark.parametrize(
    "said",
    ["a sunflower field", "Knives on a desk", "some flowers", "the knife", "a jackknife"],
)
def test_plurals_and_compounds_are_said_too(said):
    """What the noun is a part of, and the plural of what it is, keep it out."""
    bank = PhraseBank([["a flower and a knife"], ["a kite"]])
    head = "flower" if "flower" in said else "knife"
    drawn = {bank.draw([said], np.random.default_rng(n)) for n in range(60)}
    assert drawn == {"a flower", "a knife", "a kite"} - {f"a {head}"}


def test_phrases_come_as_often_as_captions_hold_them():
    bank = PhraseBank([[f"a kite over house {n}"] for n in range(9)] + [["a bird"]])
    drawn = [bank.draw(["a car"], np.random.default_rng(n)) for n in range(400)]
    assert 0.83 < drawn.count("a kite") / 400 < 0.97


def tokenize(texts):
    return {"input_ids": torch.tensor([[len(text)] for text in texts])}


def rows_of(captions, **more):
    return [{"captions": c, "row": n, **more} for n, c in enumerate(captions)]


def test_the_collator_gives_caption_and_positive_a_negative_each():
    collator = AsymmetryCollator(tokenize, negatives="insert", phrases=BANK)
    batch = collator(rows_of(CAPTIONS))
    assert set(batch) == {
        "input_ids", "positive_input_ids", "negative_input_ids", "positive_negative_input_ids",
        "row", "caption_index",
    }  # fmt: skip
    for prefix in ("", "positive_"):
        longer = batch[f"{prefix}negative_input_ids"] - batch[f"{prefix}input_ids"]
        assert (longer >= len(" and a man")).all()
    plain = AsymmetryCollator(tokenize, positives="none", negatives="insert", phrases=BANK)
    assert set(plain(rows_of(CAPTIONS))) == {
        "input_ids", "negative_input_ids", "row", "caption_index"
    }  # fmt: skip


def test_what_is_drawn_depends_on_seed_epoch_row_and_caption_alone():
    def drawn(seed=0, epoch=0, positives="mixed", bank=BANK):
        collator = AsymmetryCollator(tokenize, None, positives, "insert", seed, bank)
        return [collator.draw(row) for row in rows_of(CAPTIONS * 4, epoch=epoch, caption_index=0)]

    first = drawn()
    # another process has a bank of its own
    assert first == drawn(bank=PhraseBank(CAPTIONS)) == drawn(bank=pickle.loads(pickle.dumps(BANK)))
    for other in (drawn(seed=1), drawn(epoch=1)):
        assert [d["negative"] for d in other] != [d["negative"] for d in first]
    alone = drawn(positives="none")
    assert [d["negative"] for d in alone] == [d["negative"] for d in first]
    noises = AsymmetryCollator(tokenize, None, "mixed", "mixture", 0)
    kept = [noises.draw(row)["positive"] for row in rows_of(CAPTIONS * 4, caption_index=0)]
    assert kept == [d["positive"] for d in first]


@pytest.mark.parametrize("options", [{"negatives": "insert"}, {"phrases": BANK}])
def test_insert_and_phrases_go_together(options):
    with pytest.raises(ValueError, match='a PhraseBank of training captions, go with "insert"'):
        AsymmetryCollator(tokenize, **options)


@settings(max_examples=30)
@given(
    st.lists(
        st.sampled_from(("a", "red", "dog", ",", "and", "with", "of", "in", "kite", ".", "-")),
        max_size=8,
    )
)
def test_any_text_takes_a_phrase_in(words):
    text = " ".join(words)
    negative = BANK.insert(text, [text or "a car"], np.random.default_rng(0))
    assert len(negative) > len(text)
