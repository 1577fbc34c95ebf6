"""Texts that say more, less or false things than a caption, from the captions of a data set.

Definitions 2 to 4 of the ACF-R+ paper in the words of a caption. A false phrase comes from another
image and names an object that no caption of this image names; a true one comes from another caption
of this image. Only the captions tell the content of a picture: an object that all of them leave out
passes for absent. On the embedded scenes captions name everything, and with `is_true` every variant
is exact.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ascl_plugin.asymmetry.captions.edits import (
    OPENERS,
    insert_phrase,
    join,
    opens,
    places,
    swapped_nouns,
    truncate,
    without_last_words,
    without_phrase,
    words,
)
from ascl_plugin.asymmetry.captions.objects import object_of
from ascl_plugin.asymmetry.captions.reader import CaptionReader, Content
from ascl_plugin.asymmetry.captions.tagger import Phrase

FALSE_EDITS = ("add", "replace", "swap")
TRUE_EDITS = ("caption", "phrase added", "caption added", "phrase removed", "truncated")
AMOUNTS = (
    "false phrases added",
    "true phrases added",
    "captions added",
    "phrases removed",
    "words removed",
)
PHRASES, CAPTIONS, WORDS = 3, 2, 5  # added or removed at most
_TRIES = 100  # phrases of other images tried


@dataclass(frozen=True)
class Variants:
    """The variants of one caption; an edit that is impossible is left out.

    Attributes:
        row: row of the image.
        caption: the caption itself.
        negatives: edit of `FALSE_EDITS` -> text. `add`: a false phrase added; `replace`: one in the
            place of a phrase of the caption; `swap`: two nouns of the caption exchanged.
        positives: edit of `TRUE_EDITS` -> text. `caption` itself; `phrase added`: a true one, where
            `add` has the false one; `caption added`: another after it; `phrase removed`;
            `truncated`: its first half.
        amounts: edit of `AMOUNTS` -> texts with 0, 1, 2, ... such edits.
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
    """Return variants of the first caption of each row, a function of captions, seed and row.

    Args:
        captions: all captions of each image of the data set.
        noun_phrases: function from a text to its phrases, such as `Tagger().noun_phrases`.
        rows: rows to make variants of; by default all.
        seed: seed of the drawn phrases.
        is_true: (row, text) -> True if the text is true of the image, where that is known; a
            negative that is true after all is left out.
        object_of: function from a noun to the object it names, None for nouns never added.

    Raises:
        ValueError: captions of fewer than two images, thus no other to take phrases from.
    """
    if len(captions) < 2:
        raise ValueError(f"captions of {len(captions)} images: variants need those of another")
    reader = CaptionReader(functools.cache(noun_phrases), object_of)
    found = []
    for row in range(len(captions)) if rows is None else rows:
        one = _variants(captions, row, reader, np.random.default_rng([seed, row]))
        if is_true is not None:
            for kind in [k for k, text in one.negatives.items() if is_true(row, text)]:
                del one.negatives[kind]
        found.append(one)
    return found


def _variants(
    captions: Sequence[Sequence[str]], row: int, reader: CaptionReader, rng: np.random.Generator
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
        {kind: texts[0] for kind, texts in zip(FALSE_EDITS, negatives, strict=True) if texts},
        {kind: texts[0] for kind, texts in zip(TRUE_EDITS, positives, strict=True) if texts},
        {done: [caption, *texts] for done, texts in zip(AMOUNTS, amounts, strict=True) if texts},
    )


def _false_phrases(
    captions: Sequence[Sequence[str]], row: int, reader: CaptionReader, rng: np.random.Generator
) -> list[str]:
    """Return phrases of other images, of different objects that this image's captions lack."""
    named = functools.reduce(Content.__or__, map(reader.content, captions[row]))
    found: list[str] = []
    for _ in range(_TRIES):
        other = captions[(row + 1 + int(rng.integers(len(captions) - 1))) % len(captions)]
        offered = reader.offered(other[int(rng.integers(len(other)))])
        if not offered or len(found) == PHRASES:
            continue
        thing, phrase = offered[rng.integers(len(offered))]
        if named.lacks(thing, phrase.head):
            named |= Content(frozenset({thing}), frozenset())
            found.append(phrase.text)
    return found


def _true_phrases(
    captions: Sequence[str], reader: CaptionReader, rng: np.random.Generator
) -> list[str]:
    """Return phrases of an image's other captions, of different objects that the first lacks."""
    named = set(reader.content(captions[0]).objects)
    offered = [each for text in captions[1:] for each in reader.offered(text)]
    found: list[str] = []
    for thing, phrase in (offered[i] for i in rng.permutation(len(offered))):
        if thing not in named and len(found) < PHRASES:
            named.add(thing)
            found.append(phrase.text)
    return found


def _added(caption: str, phrases: Sequence[str], at: int) -> list[str]:
    """Return the caption with one phrase, two, ... at character `at`."""
    return [insert_phrase(caption, " and ".join(phrases[:k]), at) for k in _up_to(len(phrases))]


def _appended(caption: str, others: Sequence[str]) -> list[str]:
    """Return the caption with one more behind it, two, ..."""
    counts = _up_to(min(CAPTIONS, len(others)))
    return [functools.reduce(join, others[:k], caption) for k in counts]


def _removed(caption: str, reader: CaptionReader, rng: np.random.Generator) -> list[str]:
    """Return the caption with one phrase less, two, ..., as long as one can go."""
    texts: list[str] = []
    while len(texts) < PHRASES:
        shorter = without_phrase(caption, reader.phrases(caption), rng)
        if shorter is None:
            break
        texts.append(shorter)
        caption = shorter
    return texts


def _shortened(caption: str) -> list[str]:
    """Return the caption with one word less at the end, two, ...; half of them stay."""
    count = len(words(caption.rstrip(" .")))
    return [without_last_words(caption, k) for k in _up_to(min(WORDS, count // 2))]


def _up_to(count: int) -> range:
    return range(1, count + 1)
