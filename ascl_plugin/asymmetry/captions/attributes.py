"""Colours, sizes, ages and numbers in captions, and which of them exclude each other."""

from __future__ import annotations

import re
from typing import NamedTuple

from ascl_plugin.asymmetry.captions.tagger import Phrase

# word: the hues it may stand for; two colours exclude each other if they share none
_HUES = """
red: red; maroon: red brown; burgundy: red brown; pink: red pink; purple: purple blue pink
lavender: purple blue pink; orange: orange red yellow; yellow: yellow; gold: yellow brown
golden: yellow brown; blond: yellow brown white; blonde: yellow brown white
brown: brown; tan: brown yellow white; beige: brown yellow white; cream: brown yellow white
green: green; blue: blue; navy: blue black; teal: blue green; turquoise: blue green
grey: grey white black blue; gray: grey white black blue; silver: grey white
white: white; black: black
"""
_VALUES: dict[str, tuple[str, frozenset[str]]] = {
    word.strip(): ("colour", frozenset(hues.split()))
    for word, hues in (each.split(":") for each in re.split(r"[;\n]", _HUES.strip()))
}
for _kind, _same in (
    ("size", ("large big huge giant enormous", "small little tiny")),
    ("age", ("young little baby teenage", "old older elderly")),
    ("number", ("two", "three", "four", "five", "six", "seven", "eight")),
):
    for _words in _same:
        for _word in _words.split():
            _VALUES.setdefault(_word, (_kind, frozenset({_words.split()[0]})))

_WORD = re.compile(r"[\w'’-]+")
_JOINED = re.compile(r"([\w'’-]+) ?(?:and|,|/|&) ?$")


class Attribute(NamedTuple):
    """An attribute of a phrase, `caption[start:end]`.

    Attributes:
        kind: "colour", "size", "age" or "number".
        word: the word, in lower case.
        values: what it stands for; words of a kind that share no value exclude each other.
    """

    kind: str
    word: str
    values: frozenset[str]
    start: int
    end: int


def attributes_of(caption: str, phrase: Phrase) -> list[Attribute]:
    """Return the attributes before a phrase's last word, and one joined to them from outside.

    >>> [a.word for a in attributes_of("a black and white dog", Phrase("white dog", "dog", 12, 21))]
    ['black', 'white']
    """
    found = [
        Attribute(*_named(word), word.start() + phrase.start, word.end() + phrase.start)
        for word in _WORD.finditer(phrase.text)
        if word[0].lower() in _VALUES and word.end() < len(phrase.text)
    ]
    before = _JOINED.search(caption, 0, phrase.start)
    if before and found and found[0].start == phrase.start and before[1].lower() in _VALUES:
        found.insert(0, Attribute(*_named(before), before.start(1), before.end(1)))
    return found


def _named(word: re.Match[str]) -> tuple[str, str, frozenset[str]]:
    name = (word[1] if word.re is _JOINED else word[0]).lower()
    kind, values = _VALUES[name]
    return kind, name, values


def values_of(said: frozenset[str], kind: str) -> set[str]:
    """Return the values of one kind that any of some words stands for."""
    named = (_VALUES[word] for word in said if word in _VALUES)
    return {value for of, values in named if of == kind for value in values}


def exchanged(caption: str, changes: dict[Attribute, str]) -> str:
    """Return the caption with attributes replaced by words, "a" or "an" before them mended."""
    for old in sorted(changes, key=lambda each: -each.start):
        new = changes[old]
        head = caption[: old.start]
        article = re.search(r"\b([Aa])n? $", head)
        if article:
            head = head[: article.start()] + article[1] + ("n " if new[0] in "aeiou" else " ")
        elif caption[old.start].isupper():
            new = new[0].upper() + new[1:]
        caption = head + new + caption[old.end :]
    return caption
