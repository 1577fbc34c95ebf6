"""Texts that tell more, less or wrong things than a caption, from the captions of a data set.

Definitions 2 to 4 of the ACF-R+ paper made in the words of a caption. A false phrase comes from
another image and names an object that no caption of this image names; a true one comes from
another caption of this image. What is in the picture only the captions say: an object that all of
them leave out passes for absent. On the embedded scenes captions name everything, and with
`is_true` every variant is exact.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ascl_plugin.asymmetry.captions.edits import (
    OPENERS,
    insert_phrase,
    opens,
    places,
    swapped_nouns,
    without_last_words,
    without_phrase,
    words,
)
from ascl_plugin.asymmetry.captions.objects import object_of
from ascl_plugin.asymmetry.captions.tagger import Phrase
from ascl_plugin.asymmetry.text import join, truncate

NEGATIVES = ("add", "replace", "swap")
POSITIVES = ("caption", "phrase added", "caption added", "phrase removed", "truncated")
AMOUNTS = (
    "false phrases added",
    "true phrases added",
    "captions added",
    "phrases removed",
    "words removed",
)
PHRASES, CAPTIONS, WORDS = 3, 2, 5  # how many are added or removed at most
_TRIES = 100  # phrases of other images looked at


@dataclass(frozen=True)
class Variants:
    """What is made of one caption; a kind that cannot be made of it is left out.

    Attributes:
        row: of the image.
        caption: the text they are variants of.
        negatives: kind of `NEGATIVES` -> text. `add`: a false phrase added; `replace`: one in the
            place of a phrase of the caption; `swap`: two nouns of the caption exchanged.
        positives: kind of `POSITIVES` -> text. `caption` itself; `phrase added`: a true one, where
            `add` has the false one; `caption added`: another after it; `phrase removed`;
            `truncated`: its first half.
        amounts: what is done, of `AMOUNTS` -> texts in which it is done 0, 1, 2, ... times.
    """

    row: int
    caption: str
    negatives: dict[str, str]
    positives: dict[str, str]
    amounts: dict[str, list[str]]


def make_variants(
    captions: Sequence[Sequence[str]],
    noun_phrases: Callable[[str], Sequence[Phrase]],
    rows: Iterable[int] | None = None,
    seed: int = 0,
    is_true: Callable[[int, str], bool] | None = None,
    object_of: Callable[[str], str | None] = object_of,
) -> list[Variants]:
    """Variants of the first caption of each row; a row's depend on captions, seed and row alone.

    Args:
        captions: of each image of the data set.
        noun_phrases: of a text, such as `Tagger().noun_phrases`.
        rows: of which variants are made; by default all.
        seed: other seeds draw other phrases.
        is_true: (row, text) -> whether the text is true of the image, where that is known; a
            negative that is true after all is left out.
        object_of: the object that a noun names, None for what is never added.

    Raises:
        ValueError: captions of fewer than two images: there is no other to take phrases from.
    """
    if len(captions) < 2:
        raise ValueError(f"captions of {len(captions)} images: variants need those of another")
    reader = _Reader(functools.cache(noun_phrases), object_of)
    found = []
    for row in range(len(captions)) if rows is None else rows:
        one = _variants(captions, row, reader, np.random.default_rng([seed, row]))
        if is_true is not None:
            for kind in [k for k, text in one.negatives.items() if is_true(row, text)]:
                del one.negatives[kind]
        found.append(one)
    return found


@dataclass(frozen=True)
class _Reader:
    """What a text names."""

    phrases: Callable[[str], Sequence[Phrase]]
    object_of: Callable[[str], str | None]

    def named(self, text: str) -> set[str | None]:
        """The objects that any word of a text may name, whatever its part of speech."""
        return {self.object_of(word) for word in words(text)} | {
            self.object_of(phrase.head) for phrase in self.phrases(text)
        }

    def offered(self, text: str) -> list[tuple[str, Phrase]]:
        """Object and phrase, of the phrases of a text that can be said in another."""
        found = []
        for phrase in self.phrases(text):
            thing = self.object_of(phrase.head)
            if thing is not None and opens(phrase):
                inside = phrase.text[0].lower() + phrase.text[1:]
                found.append((thing, phrase._replace(text=inside)))
        return found


def _variants(
    captions: Sequence[Sequence[str]], row: int, reader: _Reader, rng: np.random.Generator
) -> Variants:
    caption, *others = captions[row]
    own = reader.phrases(caption)
    at = rng.choice(places(caption, own))
    false = _false_phrases(captions, row, reader, rng)
    with_false = _added(caption, false, at)
    with_true = _added(caption, _true_phrases(captions[row], reader, rng), at)
    joined = _appended(caption, [others[i] for i in rng.permutation(len(others))])
    without = _removed(caption, reader, rng)
    whole = [phrase for phrase in own if opens(phrase, {*OPENERS, "the"})]
    replaced = []
    if false and whole:
        out = whole[rng.integers(len(whole))]
        replaced = [caption[: out.start] + false[0] + caption[out.end :]]
    swapped = swapped_nouns(caption, own, reader.object_of, rng)
    negatives = (with_false, replaced, swapped)
    positives = ([caption], with_true, joined, without, [truncate(caption)])
    amounts = (with_false, with_true, joined, without, _shortened(caption))
    return Variants(
        row,
        caption,
        {kind: texts[0] for kind, texts in zip(NEGATIVES, negatives, strict=True) if texts},
        {kind: texts[0] for kind, texts in zip(POSITIVES, positives, strict=True) if texts},
        {done: [caption, *texts] for done, texts in zip(AMOUNTS, amounts, strict=True) if texts},
    )


def _false_phrases(
    captions: Sequence[Sequence[str]], row: int, reader: _Reader, rng: np.random.Generator
) -> list[str]:
    """Phrases of other images, each of another object, none of which this image's captions name."""
    named = set().union(*map(reader.named, captions[row]))
    said = {word for text in captions[row] for word in words(text)}
    found: list[str] = []
    for _ in range(_TRIES):
        other = captions[(row + 1 + int(rng.integers(len(captions) - 1))) % len(captions)]
        offered = reader.offered(other[int(rng.integers(len(other)))])
        if not offered or len(found) == PHRASES:
            continue
        thing, phrase = offered[rng.integers(len(offered))]
        # a word that starts like the noun is its plural, a compound or derived of it
        if thing not in named and not any(word.startswith(phrase.head) for word in said):
            named.add(thing)
            found.append(phrase.text)
    return found


def _true_phrases(captions: Sequence[str], reader: _Reader, rng: np.random.Generator) -> list[str]:
    """Phrases of an image's other captions, each of another object, which the first leaves out."""
    named = reader.named(captions[0])
    offered = [each for text in captions[1:] for each in reader.offered(text)]
    found: list[str] = []
    for thing, phrase in (offered[i] for i in rng.permutation(len(offered))):
        if thing not in named and len(found) < PHRASES:
            named.add(thing)
            found.append(phrase.text)
    return found


def _added(caption: str, phrases: Sequence[str], at: int) -> list[str]:
    """With one phrase, two, ... at character `at`."""
    return [insert_phrase(caption, " and ".join(phrases[:k]), at) for k in _up_to(len(phrases))]


def _appended(caption: str, others: Sequence[str]) -> list[str]:
    """With one caption more behind it, two, ..."""
    counts = _up_to(min(CAPTIONS, len(others)))
    return [functools.reduce(join, others[:k], caption) for k in counts]


def _removed(caption: str, reader: _Reader, rng: np.random.Generator) -> list[str]:
    """With one phrase less, two, ..., as long as one can go."""
    texts: list[str] = []
    while len(texts) < PHRASES:
        shorter = without_phrase(caption, reader.phrases(caption), rng)
        if shorter is None:
            break
        texts.append(shorter)
        caption = shorter
    return texts


def _shortened(caption: str) -> list[str]:
    """With one word less at the end, two, ...; half of them stay."""
    count = len(words(caption.rstrip(" .")))
    return [without_last_words(caption, k) for k in _up_to(min(WORDS, count // 2))]


def _up_to(count: int) -> range:
    return range(1, count + 1)
