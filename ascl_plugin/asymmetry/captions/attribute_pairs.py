"""Pairs of images whose captions give one noun different attributes, or two nouns each other's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from ascl_plugin.asymmetry.captions.attributes import (
    Attribute,
    attributes_of,
    exchanged,
    values_of,
)
from ascl_plugin.asymmetry.captions.mentions import Mention, ReadImage

_TRIES = 20  # partners of a phrase


@dataclass(frozen=True, eq=False)
class Described:
    """A noun phrase with one attribute of a kind: "a red car"."""

    mention: Mention
    attribute: Attribute

    @property
    def head(self) -> str:
        """The noun."""
        return self.mention.phrase.head

    def phrase_with(self, word: str) -> str:
        """Return the phrase with another word for its attribute."""
        start = self.mention.phrase.start
        own = self.attribute
        moved = own._replace(start=own.start - start, end=own.end - start)
        return exchanged(self.mention.phrase.text, {moved: word})


#: One described phrase, or two of a caption, in the order of their nouns.
Told = tuple[Described, ...]
#: (caption of A, the same with B's attributes, row of B, caption of B, the same with A's).
Match = tuple[str, str, int, str, str]


def single(image: ReadImage, exact: bool, is_person: Callable[[str | None], bool]) -> list[Told]:
    """Return the described phrases of an image that its captions settle.

    Colours, sizes and ages are settled if no caption tells of several things under the noun, a
    number if all phrases of the object agree. Colours of people are left out.

    Args:
        image: captions.
        exact: True if truth is known from elsewhere: all described phrases.
        is_person: function from an object to True for people.
    """
    found: list[Told] = []
    for mention in image.mentions:
        told = attributes_of(mention.caption.text, mention.phrase)
        for one in told:
            alone = sum(other.kind == one.kind for other in told) == 1
            if one.start < mention.phrase.start or not alone:
                continue
            if exact or _settled(image, mention, one, is_person):
                found.append((Described(mention, one),))
    return found


def _settled(
    image: ReadImage, mention: Mention, one: Attribute, is_person: Callable[[str | None], bool]
) -> bool:
    if one.kind == "number":
        same = [other.number for other in image.mentions if other.thing == mention.thing]
        return mention.thing is not None and all(each in (None, one.values) for each in same)
    if one.kind == "colour" and is_person(mention.thing):
        return False
    head = mention.phrase.head
    return not any(other.several for other in image.mentions if other.phrase.head == head)


def double(told: Sequence[Told]) -> list[Told]:
    """Return pairs of described phrases of one caption that can exchange their attributes."""
    found: list[Told] = []
    for i, (first,) in enumerate(told):
        for (second,) in told[i + 1 :]:
            if first.mention.caption is not second.mention.caption:
                break
            x, y = first.attribute, second.attribute
            if first.head != second.head and "number" != x.kind == y.kind and x.word != y.word:
                found.append((first, second) if first.head < second.head else (second, first))
    return found


class AttributePairs:
    """Images that match in their nouns and differ in the attributes.

    Args:
        told: row -> `single` or `double` phrases of the image, of all rows to draw from.
        images: images by row.
        is_true: (row, phrase) -> True if a phrase is true of the image, or None: by the captions.
    """

    def __init__(
        self,
        told: dict[int, list[Told]],
        images: Sequence[ReadImage],
        is_true: Callable[[int, str], bool] | None,
    ) -> None:
        self._told, self._images, self._is_true = told, images, is_true
        self._with_key: dict[Hashable, list[tuple[int, Told]]] = defaultdict(list)
        for row, several in told.items():
            for each in several:
                self._with_key[_key(each)].append((row, each))

    def match(self, a: int, rng: np.random.Generator) -> Match | None:
        """Return a match of image `a`, or None."""
        several = self._told[a]
        for place in rng.permutation(len(several)):
            told = several[place]
            others = self._with_key.get(_key(told, opposite=True), [])
            for chosen in rng.integers(len(others), size=_TRIES) if others else ():
                b, of_b = others[chosen]
                if b != a and self._differ(a, told, of_b) and self._differ(b, of_b, told):
                    own, other = told[0].mention.caption.text, of_b[0].mention.caption.text
                    return own, _with(own, told, of_b), b, other, _with(other, of_b, told)
        return None

    def _differ(self, a: int, told: Told, others: Told) -> bool:
        """Return True if A's phrases are true of A, and false with the attributes of others."""
        for own, other in zip(told, others, strict=True):
            values = other.attribute.values
            if own.attribute.values & values:
                return False
            if self._is_true is not None:
                if not self._is_true(a, own.mention.phrase.text):
                    return False
                if self._is_true(a, own.phrase_with(other.attribute.word)):
                    return False
            elif values & self._said(a, own, whole=len(told) == 1):
                return False
        return True

    def _said(self, a: int, own: Described, whole: bool) -> set[str]:
        """Return the values of a kind that captions of A tell: any of them, or of the noun's."""
        image, kind = self._images[a], own.attribute.kind
        if whole:
            return values_of(image.content.words, kind)
        return said_of_noun(image, own.head, kind)


def said_of_noun(image: ReadImage, head: str, kind: str) -> set[str]:
    """Return the values of a kind that an image's captions tell of a noun."""
    return {
        value
        for mention in image.mentions
        if mention.phrase.head == head
        for each in attributes_of(mention.caption.text, mention.phrase)
        if each.kind == kind
        for value in each.values
    }


def _key(told: Told, opposite: bool = False) -> Hashable:
    """Return a key that phrases of two images share if they may match.

    Of one phrase, kind and noun; of two, also the words, exchanged for the `opposite`.
    """
    if len(told) == 1:
        return told[0].attribute.kind, told[0].head
    said = [each.attribute.word for each in told]
    heads = [each.head for each in told]
    return (told[0].attribute.kind, *heads, *(said[::-1] if opposite else said))


def _with(caption: str, told: Told, others: Told) -> str:
    changes = {own.attribute: other.attribute.word for own, other in zip(told, others, strict=True)}
    return exchanged(caption, changes)
