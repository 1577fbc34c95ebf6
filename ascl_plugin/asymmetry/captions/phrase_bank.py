"""Asymmetry-I negatives made in the text: a noun phrase of another image's caption, inserted.

The noises of `ascl_plugin.asymmetry.embedding` blur a caption; this adds one thing that the image
does not hold, as in Definition 2 of the ACF-R+ paper: B + X, X not within A. Only the captions tell
the content of an image: an object that all of them leave out passes for absent, so some negatives
are true of their image.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np

from ascl_plugin.asymmetry.captions.edits import opens
from ascl_plugin.asymmetry.captions.objects import object_of
from ascl_plugin.asymmetry.captions.tagger import Tagger, singular

_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_TRIES = 50  # draws before all phrases are looked through


class PhraseBank:
    """The noun phrases of a data set's captions, for insertion into captions of other images.

    Each distinct caption is tagged once; a phrase is drawn in proportion to its captions.

    Args:
        captions: all captions of each image.
        progress: True for a progress bar.

    Raises:
        ValueError: no caption holds a phrase that can be inserted.
        ImportError: the tagger's library is not installed.
    """

    def __init__(self, captions: Sequence[Sequence[str]], progress: bool = False) -> None:
        from tqdm.auto import tqdm

        self.tagger = Tagger()
        texts = dict.fromkeys(chain.from_iterable(captions))
        counts: Counter[tuple[str, str]] = Counter()
        for text in tqdm(texts, "noun phrases", unit="caption", disable=not progress):
            counts.update(self._offered(text))
        if not counts:
            raise ValueError(f"none of {len(texts)} captions holds a noun phrase to insert")
        self.phrases = list(counts)
        self._ends = np.cumsum(list(counts.values()))

    def draw(self, captions: Sequence[str], generator: np.random.Generator) -> str:
        """Return a phrase whose head noun is in none of `captions`, all those of the image.

        Neither is another name of its object (`objects`), nor a word that contains the noun.

        Raises:
            ValueError: the captions name every noun of the bank.
        """
        said = _said(captions)
        named = {object_of(word) for word in said}

        def absent(head: str) -> bool:
            return object_of(head) not in named and not any(
                head in word or (len(word) > 3 and head.endswith(word)) for word in said
            )

        for _ in range(_TRIES):
            place = np.searchsorted(self._ends, generator.integers(self._ends[-1]), side="right")
            phrase, head = self.phrases[place]
            if absent(head):
                return phrase
        left = [phrase for phrase, head in self.phrases if absent(head)]
        if not left:
            raise ValueError(
                f"no noun phrase of another image can be inserted: the captions {list(captions)} "
                f"name the heads of all {len(self.phrases)} phrases"
            )
        return left[generator.integers(len(left))]

    def insert(self, text: str, captions: Sequence[str], generator: np.random.Generator) -> str:
        """Return a negative of `text`: with one phrase more, joined by "and" or "with".

        Args:
            text: a caption of the image, or a positive generated from its captions.
            captions: all captions of the image.
            generator: the only source of chance.
        """
        phrase = self.draw(captions, generator)
        places = self._places(text)
        end, joiner = places[generator.integers(len(places))]
        return f"{text[:end]} {joiner} {phrase}{text[end:]}"

    def _offered(self, text: str) -> list[tuple[str, str]]:
        """Return (phrase, head) of the phrases that fit into another sentence."""
        offered = []
        for phrase in self.tagger.noun_phrases(text):
            follows = text[phrase.end :].lstrip().lower()
            whole = not follows.startswith(("of ", "'", "’", "-"))
            if opens(phrase) and whole and len(phrase.head) > 2:
                offered.append((phrase.text.lower(), phrase.head))
        return [each for each in offered if object_of(each[1]) is not None]

    def _places(self, text: str) -> list[tuple[int, str]]:
        """Return (character, joiner) of the places for one more phrase.

        They lie behind a noun phrase that a preposition, "and", a mark or nothing follows: "a ball
        and a red car in the snow"; "with" if a preposition leads it: "in the snow with a red car".
        Without such a phrase, at the end, before the stop.
        """
        words = self.tagger.tag(text)
        at_start = {word.start: i for i, word in enumerate(words)}
        at_end = {word.end: i for i, word in enumerate(words)}
        places = []
        for phrase in self.tagger.noun_phrases(text):
            first, last = at_start[phrase.start], at_end[phrase.end]
            after = words[last + 1] if last + 1 < len(words) else None
            if after and (after.pos not in ("ADP", "CCONJ", "PUNCT") or after.text in ("of", "-")):
                continue
            before = words[first - 1] if first else None
            led = before and before.pos == "ADP" and before.lemma not in ("with", "of")
            places.append((phrase.end, "with" if led else "and"))
        return places or [(len(text.rstrip(" .!?\n")), "with")]


def _said(captions: Sequence[str]) -> set[str]:
    """Return the words of the captions in lower case, and their singulars."""
    words = {word for text in captions for word in _WORD.findall(text.lower())}
    return words | {singular(word) for word in words}
