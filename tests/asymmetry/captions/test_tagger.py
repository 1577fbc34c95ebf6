"""Tags of captions: whole spans, the parts of speech that matter, phrases with their heads."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("textblob", reason="extra `words`")
from ascl_plugin.asymmetry.captions.tagger import Tagger, singular
from ascl_plugin.data import scenes
from ascl_plugin.data.shapes import NOUNS

TAGGER = Tagger()


def test_tags_of_a_caption():
    """Every kind of word, and "be" and a modal verb apart from the verbs that say something."""
    tagged = [
        (w.text, w.pos) for w in TAGGER.tag("Two men can't see the red kite, it's quickly up.")
    ]
    assert tagged == [
        ("Two", "NUM"), ("men", "NOUN"), ("ca", "AUX"), ("n't", "PART"), ("see", "VERB"),
        ("the", "DET"), ("red", "ADJ"), ("kite", "NOUN"), (",", "PUNCT"), ("it", "PRON"),
        ("'s", "PART"), ("quickly", "ADV"), ("up", "ADP"), (".", "PUNCT"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("caption", "word", "pos"),
    [
        ("A stop sign on the corner", "stop", "NOUN"),  # a bare verb after a determiner
        ("A brown teddy bear on a bed", "bear", "NOUN"),  # and after a singular noun
        ("A skier jumps over the ramp", "jumps", "VERB"),  # a plural after a singular noun
        ("a small yellow key at the bottom left", "key", "NOUN"),  # no noun follows
        ("Four shirtless men hike in a wood", "hike", "VERB"),  # a singular after a plural
        ("The baseball players run", "players", "NOUN"),
        ("Children stop at the corner", "stop", "VERB"),
    ],
)
def test_nouns_and_verbs_are_told_apart(caption, word, pos):
    assert {w.text: w.pos for w in TAGGER.tag(caption)}[word] == pos


def test_noun_phrases_with_heads():
    """Places, measures and the picture itself head no phrase; a plural's head is the singular."""
    text = "A photo of a group of three young children in front of the old tennis courts"
    phrases = TAGGER.noun_phrases(text)
    assert [(p.text, p.head) for p in phrases] == [
        ("three young children", "child"),
        ("the old tennis courts", "court"),
    ]
    assert all(text[p.start : p.end] == p.text for p in phrases)


def test_heads_of_drawn_scenes_are_their_nouns():
    """The heads of a scene's caption are the nouns it mentions, and the ground it may name."""
    for row in scenes.make("train", 60, seed=3):
        for caption, facts in zip(row["captions"], row["caption_facts"], strict=True):
            heads = {p.head for p in TAGGER.noun_phrases(caption)} & set(NOUNS)
            assert heads == {f.partition(":")[2] for f in facts if f.startswith("noun:")}, caption


@given(st.text(max_size=60))
def test_words_tile_any_text(text):
    """Nothing but white space (and characters that are no letters) lies between the words."""
    end = 0
    for word in TAGGER.tag(text):
        assert not text[end : word.start].strip()
        assert text[word.start : word.end] == word.text
        end = word.end
    assert not re.search(r"\w", text[end:])


def test_singular():
    plurals = "boxes men people children knives ladies fish"
    assert [singular(w) for w in plurals.split()] == [
        "box", "man", "person", "child", "knife", "lady", "fish",
    ]  # fmt: skip


def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "textblob.en.taggers", None)
    with pytest.raises(ImportError, match=r"ascl-plugin\[words\]"):
        Tagger()
