"""Variants of captions: exact on scenes, by what the captions name elsewhere."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("datasets", reason="extra `recipes`")
from ascl_plugin.asymmetry.captions.objects import object_of
from ascl_plugin.asymmetry.captions.tagger import Phrase
from ascl_plugin.asymmetry.captions.variants import AMOUNTS, FALSE_EDITS, TRUE_EDITS, make_variants
from ascl_plugin.data import scenes
from ascl_plugin.data.scene_phrases import facts, noun_phrases

SIZE = 40


@pytest.fixture(scope="module")
def rows():
    return scenes.make("test", SIZE)


@pytest.fixture(scope="module")
def captions_of_scenes(rows):
    return rows["captions"][:]


@pytest.fixture(scope="module")
def made(rows, known):
    return make_variants(
        rows["captions"][:],
        noun_phrases,
        is_true=lambda row, text: facts(text) <= known[row],
        object_of=str,
    )


def test_on_scenes_negatives_are_false_and_positives_true(made, known):
    for one in made:
        assert not any(facts(text) <= known[one.row] for text in one.negatives.values())
        assert all(facts(text) <= known[one.row] for text in one.positives.values())
        for done, texts in one.amounts.items():
            true = [facts(text) <= known[one.row] for text in texts]
            expected = [True, *[not done.startswith("false")] * (len(texts) - 1)]
            assert true == expected, (done, texts)


def test_a_negative_that_is_true_after_all_is_left_out(captions_of_scenes):
    unasked = make_variants(captions_of_scenes, noun_phrases, object_of=str)
    assert all({"add", "replace"} <= set(one.negatives) for one in unasked)
    swapped = {(one.row, one.negatives["swap"]) for one in unasked if "swap" in one.negatives}
    assert len(swapped) > SIZE / 3
    asked = make_variants(
        captions_of_scenes,
        noun_phrases,
        is_true=lambda row, text: (row, text) in swapped,
        object_of=str,
    )
    assert all(set(one.negatives) == {"add", "replace"} for one in asked)


def test_amounts_grow_and_shrink_one_at_a_time(made):
    for one in made:
        assert set(one.amounts) <= set(AMOUNTS) and set(one.negatives) <= set(FALSE_EDITS)
        assert set(one.positives) <= set(TRUE_EDITS)
        assert all(texts[0] == one.caption for texts in one.amounts.values())
        phrases = {
            done: [len(noun_phrases(t)) for t in texts] for done, texts in one.amounts.items()
        }
        start = len(noun_phrases(one.caption))
        assert phrases["false phrases added"] == [start, start + 1, start + 2, start + 3]
        for done, step in (("true phrases added", 1), ("phrases removed", -1)):
            assert phrases[done] == [start + step * k for k in range(len(phrases[done]))]
        words = [len(text.split()) for text in one.amounts["words removed"]]
        assert words == [words[0] - k for k in range(len(words))]
        assert 2 * words[-1] >= words[0]


def test_the_true_phrase_stands_where_the_false_one_does(made):
    for one in made:
        true, false = one.positives["phrase added"], one.negatives["add"]
        shared = 0
        while true[shared] == false[shared]:
            shared += 1
        assert one.caption.startswith(true[:shared].rsplit(" and ", 1)[0])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sets(st.integers(0, SIZE - 1), min_size=1))
def test_a_row_s_variants_do_not_depend_on_the_others(captions_of_scenes, seed, chosen):
    alone = make_variants(captions_of_scenes, noun_phrases, sorted(chosen), seed, object_of=str)
    all_rows = make_variants(captions_of_scenes, noun_phrases, None, seed, object_of=str)
    assert alone == [all_rows[row] for row in sorted(chosen)]


def test_another_seed_another_phrase(captions_of_scenes, made):
    other = make_variants(captions_of_scenes, noun_phrases, seed=1, object_of=str)
    same = sum(a.negatives["add"] == b.negatives["add"] for a, b in zip(made, other, strict=True))
    assert same < SIZE / 4


def words_as_phrases(text):
    """ "a dog" and "two dogs" are phrases, nothing else; the head loses a final s."""
    return [
        Phrase(m[0], m[1].removesuffix("s").lower(), m.start(), m.end())
        for m in re.finditer(r"\b(?:[Aa]n?|two|the) (\w+)", text)
    ]


def test_what_any_caption_names_is_not_absent():
    """Of seven phrases of the other image only the umbrella names an object that is not named: the
    puppy is a dog, the bike is in "bikers", the car in the last caption, the sky and a hat are
    nothing that captions would tell, and "the fence" would have been spoken of before.
    """
    captions = [
        ["A dog in the grass .", "bikers near a dog", "two cars behind a dog"],
        ["A puppy and a bike and a car under a sky , a hat , the fence", "an umbrella"],
    ]
    for seed in range(10):
        (one,) = make_variants(captions, words_as_phrases, [0], seed)
        assert "an umbrella" in one.negatives["add"]
        assert len(one.amounts["false phrases added"]) == 2
        assert one.negatives["replace"] in (
            "an umbrella in the grass .", "A dog in an umbrella .",
        )  # fmt: skip
        assert "two cars" in one.positives["phrase added"]


def test_a_caption_alone_with_nothing_to_work_on():
    one, _ = make_variants([["running ."], ["jumping high ."]], words_as_phrases)
    assert one.negatives == {} and set(one.positives) == {"caption", "truncated"}
    with pytest.raises(ValueError, match="captions of 1 images"):
        make_variants([["a dog"]], words_as_phrases)


def test_objects():
    assert object_of("men") == object_of("girl") == "person"
    assert object_of("sky") is object_of("skiing") is object_of("fenced") is None
    assert object_of("building") == "building" and object_of("bed") == "bed"


def test_real_captions_with_the_tagger():
    pytest.importorskip("textblob", reason="extra `words`")
    from ascl_plugin.asymmetry.captions.tagger import Tagger

    captions = [
        ["A man in a red shirt rides a brown horse .", "a cowboy on a horse near a fence"],
        ["Two dogs play on a sofa", "a television behind two dogs"],
    ]
    one, _ = make_variants(captions, Tagger().noun_phrases)
    assert re.search(r"horse and (two dogs|a sofa|a television)", one.negatives["add"])
    assert "man" in one.negatives["swap"] and one.negatives["swap"] != one.caption
    assert one.positives["phrase removed"] == "A man rides a brown horse ."
    assert "a fence" in one.positives["phrase added"]
