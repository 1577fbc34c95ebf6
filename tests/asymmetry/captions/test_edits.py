"""Edits of captions whose noun phrases are marked by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ascl_plugin.asymmetry.captions import edits
from ascl_plugin.asymmetry.captions.objects import object_of
from ascl_plugin.asymmetry.captions.tagger import Phrase


def marked(text):
    """A caption and its phrases, of "[a red car] near [two dogs]"; heads lose a final s."""
    phrases, caption = [], ""
    for part in re.split(r"(\[.*?\])", text):
        if part.startswith("["):
            head = part[1:-1].split()[-1].removesuffix("s")
            phrases.append(Phrase(part[1:-1], head, len(caption), len(caption) + len(part) - 2))
        caption += part.strip("[]")
    return caption, phrases


def test_places_are_not_before_verbs_or_of():
    caption, phrases = marked("[a man] rides [a horse] in [the snow] .")
    assert [caption[:at] for at in edits.places(caption, phrases)] == [
        "a man rides a horse", "a man rides a horse in the snow",
    ]  # fmt: skip
    assert edits.insert_phrase(caption, "a dog", edits.places(caption, phrases)[1]) == (
        "a man rides a horse in the snow and a dog ."
    )
    assert edits.places("running fast .", []) == [len("running fast")]
    caption, phrases = marked("[a pack] of [dogs]")
    assert edits.places(caption, phrases) == [len(caption)]


@pytest.mark.parametrize(
    ("text", "shorter"),
    [
        ("[a man] in [a red shirt] rides [a horse]", {"a man rides a horse"}),
        ("[a car] with [two stars] and [a box] at night", {"a car with two stars at night"}),
        ("[a man] sits on [a bench] .", {"a man sits ."}),
        ("[a man] in [a hat] on [a bench]", {"a man on a bench", "a man in a hat"}),
        ("[a man] rides [a horse]", {None}),  # the object of a verb
        ("[a group] of [people]", {None}),
        ("[a dog] runs and [a man] looks on", {None}),  # the man has a verb of his own
        ("[a man] in a red and [white shirt] .", {None}),  # "in a red" would be left
        ("[a man]", {None}),
    ],
)
def test_a_phrase_goes_with_what_ties_it(text, shorter):
    caption, phrases = marked(text)
    found = {
        edits.without_phrase(caption, phrases, np.random.default_rng(seed)) for seed in range(20)
    }
    assert found == shorter


def test_last_words():
    assert edits.without_last_words("A dog runs fast .", 1) == "A dog runs"
    assert edits.without_last_words("A dog runs fast.", 3) == "A"


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("[a man] rides [a brown horse] .", ["a horse rides a brown man ."]),
        ("[a red car] and [a blue star]", ["a red star and a blue car"]),
        ("[two cars] and [three stars]", ["two stars and three cars"]),
        ("[two cars] and [stars]", []),  # the stars may well be two
        ("[a car] and [a star]", []),
        ("[a red car] with [a red star]", []),
        ("[a man] rides [two horses]", []),  # singular and plural
        ("[a man] sees [a boy]", []),  # may be the same one
    ],
)
def test_swapped_nouns_say_something_else(text, swapped):
    caption, phrases = marked(text)
    found = edits.swapped_nouns(caption, phrases, object_of, np.random.default_rng(0))
    assert found == swapped
