"""Edits of a caption: joined, cut, one noun phrase more or less, two nouns exchanged.

A few rules keep the grammar; a sentence may still read oddly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

import numpy as np

from ascl_plugin.asymmetry.captions.tagger import Phrase

# Words that tie a phrase to those before it and go with it. Not "of": "a group of" is nothing.
_LINKS = {
    "in", "on", "at", "with", "by", "near", "beside", "behind", "under", "over", "above", "below",
    "beneath", "around", "along", "across", "against", "inside", "outside", "through", "into",
    "onto", "from", "and", "or", "wearing", ",", ";",
}  # fmt: skip
# Words across which two nouns can be exchanged with nothing becoming false.
_EITHER_WAY = {
    "and", "or", "with", "near", "beside", "by", "next", "to", "alongside", ",", ";", "his", "her",
    "its", "their",
}  # fmt: skip
_LISTING = {"and", "or", ","}
# Openings of a phrase for a new thing: "a bird" can be added to a sentence, "the sky" cannot.
OPENERS = frozenset(("a", "an", "one", "two", "three", "four", "five", "some", "several", "many"))
_DETERMINERS = {"a", "an", "the", "this", "that", "these", "those", "some", "another", "other"}
_WORD = re.compile(r"[\w'’-]+|[^\w\s]")


def join(first: str, second: str) -> str:
    """Return one text after the other, with a stop between them."""
    start = first.strip()
    return f"{start if start[-1:] in '.!?' else start + ' .'} {second.strip()}"


def truncate(caption: str) -> str:
    """Return the first half of the words, rounded up."""
    kept = caption.split()
    return " ".join(kept[: (len(kept) + 1) // 2])


def words(text: str) -> list[str]:
    """Return the words and marks of a text, in lower case."""
    return _WORD.findall(text.lower())


def opens(phrase: Phrase, openers: Collection[str] = OPENERS) -> bool:
    """Return True if a phrase of two words or more begins with one of `openers`."""
    first, *more = phrase.text.lower().split()
    return bool(more) and first in openers


def places(caption: str, phrases: Sequence[Phrase]) -> list[int]:
    """Return the characters at which "and" and a phrase can be inserted.

    They are the ends of phrases without a verb or "of" behind them: in "a man rides a horse in the
    snow", those of the horse and the snow. Without such a phrase, the end of the caption.
    """
    found = []
    for phrase in phrases:
        following = words(caption[phrase.end :])[:1]
        if not following or following[0] == "." or following[0] in _LINKS:
            found.append(phrase.end)
    return found or [len(caption.rstrip(" ."))]


def insert_phrase(caption: str, phrase: str, at: int) -> str:
    """Insert "and" and the phrase at character `at`, the end of a phrase."""
    return f"{caption[:at]} and {phrase}{caption[at:]}"


def without_phrase(
    caption: str, phrases: Sequence[Phrase], generator: np.random.Generator
) -> str | None:
    """Return the caption without one drawn phrase and the words that tie it to those before.

    Phrases that the sentence needs stay: the first, the object of a verb, a member of a list with
    another behind it or a verb of its own. None if no phrase can go.
    """
    found = []
    for before, phrase, after in zip(phrases, phrases[1:], [*phrases[2:], None], strict=False):
        links = []
        for link in reversed(list(_WORD.finditer(caption, before.end, phrase.start))):
            if link[0].lower() not in _LINKS:
                break
            links.append(link)
        if not links:
            continue
        following = words(caption[phrase.end : after.start if after else len(caption)])[:1]
        if links[0][0].lower() in _LISTING:
            whole = not caption[before.end : links[-1].start()].strip()
            if not whole or (following and following[0] not in _LINKS | {"."}):
                continue
        if after is None or not _LISTING.issuperset(following or "-"):
            found.append(caption[: links[-1].start()].rstrip() + caption[phrase.end :])
    return found[generator.integers(len(found))] if found else None


def without_last_words(caption: str, count: int) -> str:
    """Return the caption without its last `count` words and without its stop."""
    kept = caption.rstrip(" .").split()
    return " ".join(kept[: len(kept) - count])


def swapped_nouns(
    caption: str,
    phrases: Sequence[Phrase],
    object_of: Callable[[str], str | None],
    generator: np.random.Generator,
) -> list[str]:
    """Return the caption with two of its head nouns exchanged, so that its meaning changes.

    Both are singular or both plural, and name different objects. If only "and", "with" or the like
    stands between them, each needs an adjective or a number of its own: "a dog and a cat" means
    the same as "a cat and a dog". One text for each such pair of nouns, in a drawn order.
    """
    found = []
    for i, first in enumerate(phrases):
        for second in phrases[i + 1 :]:
            if object_of(first.head) == object_of(second.head):
                continue
            (a, one, x), (b, two, y) = _noun(first), _noun(second)
            if (one == first.head) != (two == second.head):
                continue
            between = words(caption[first.end : second.start])
            described = [set(words(text)) - _DETERMINERS for text in (a + x, b + y)]
            if _EITHER_WAY.issuperset(between) and (
                not all(described) or described[0] == described[1]
            ):
                continue
            found.append(
                caption[: first.start] + a + two + x
                + caption[first.end : second.start] + b + one + y + caption[second.end :]
            )  # fmt: skip
    return [found[i] for i in generator.permutation(len(found))]


def _noun(phrase: Phrase) -> tuple[str, str, str]:
    """Split a phrase at its head noun: the text before, the noun in lower case, the text behind.

    The noun is the word that starts like the head, else the last.
    """
    spans = list(_WORD.finditer(phrase.text))
    like = [word for word in spans if word[0].lower().startswith(phrase.head)]
    noun = (like or spans)[-1]
    return phrase.text[: noun.start()], noun[0].lower(), phrase.text[noun.end() :]
