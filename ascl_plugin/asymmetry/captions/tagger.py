"""The words of an English caption with their parts of speech, and its noun phrases.

The tags are those of TextBlob's `PatternTagger`, a lexicon and contextual rules kept in text files
inside the package: nothing is downloaded and nothing is unpickled.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_CLITIC = re.compile(r"n['’]t|['’](?:s|re|ve|ll|d|m)", re.IGNORECASE)
_TOKEN = re.compile(
    rf"{_CLITIC.pattern}\b|[^\W_]+?(?=n['’]t\b)|[^\W_]+(?:-[^\W_]+)*|[^\w\s]|_", re.IGNORECASE
)
_UNIVERSAL = {
    "NN": "NOUN", "NNS": "NOUN", "NNP": "PROPN", "NNPS": "PROPN", "JJ": "ADJ", "JJR": "ADJ",
    "JJS": "ADJ", "RB": "ADV", "RBR": "ADV", "RBS": "ADV", "WRB": "ADV", "VB": "VERB",
    "VBD": "VERB", "VBG": "VERB", "VBN": "VERB", "VBP": "VERB", "VBZ": "VERB", "MD": "AUX",
    "CD": "NUM", "PRP": "PRON", "PRP$": "PRON", "WP": "PRON", "WP$": "PRON", "EX": "PRON",
    "DT": "DET", "PDT": "DET", "WDT": "DET", "IN": "ADP", "CC": "CCONJ", "TO": "PART",
    "RP": "PART", "POS": "PART", "UH": "INTJ",
}  # fmt: skip
_BE = frozenset(("be", "am", "is", "are", "was", "were", "been", "being"))


class Word(NamedTuple):
    """A token: `text[start:end]` of the caption, its universal part of speech, its lemma.

    The lemma is the text in lower case; of a plural noun, the singular.
    """

    text: str
    start: int
    end: int
    pos: str
    lemma: str


class Phrase(NamedTuple):
    """A noun phrase, `text[start:end]` of the caption, and its head: the lemma of its last noun."""

    text: str
    head: str
    start: int
    end: int


class Tagger:
    """A tagger of English captions, thousands a second.

    Against the tags of spaCy's `en_core_web_sm` on 1,500 captions of Flickr8k and COCO, 96.0% of
    the words are of the same kind (noun, verb, adjective, adverb, numeral, other); most others
    are nouns taken for verbs and verbs taken for nouns.

    Raises:
        ImportError: TextBlob is not installed.
    """

    def __init__(self) -> None:
        try:
            from textblob.en.taggers import PatternTagger
        except ImportError as error:
            raise ImportError('Tagger needs `pip install "ascl-plugin[words]"`') from error
        self._tagger = PatternTagger()

    def tag(self, text: str) -> list[Word]:
        """Return the words and punctuation of a caption, in order.

        Parts of speech are those of Universal Dependencies: NOUN, PROPN, VERB, AUX (forms of "be",
        modal verbs), ADJ, ADV, NUM, PRON, DET, ADP, CCONJ, PART, INTJ, PUNCT, and X for the rest.
        """
        found = list(_TOKEN.finditer(text))
        tokens = [match.group() for match in found]
        if not tokens:
            return []
        tags = [tag for _, tag in self._tagger.tag(" ".join(tokens), tokenize=False)]
        if len(tags) != len(tokens):
            raise RuntimeError(f"{len(tags)} tags for the {len(tokens)} words of {text!r}")
        _mend(tokens, tags)
        return [
            Word(token, match.start(), match.end(), _universal(token, tag), _lemma(token, tag))
            for match, token, tag in zip(found, tokens, tags, strict=True)
        ]

    def noun_phrases(self, text: str) -> list[Phrase]:
        """Return the noun phrases of a caption: determiner or numeral?, adjectives, nouns.

        A word of place, measure or picture-taking ("front", "group", "photo") heads no phrase: "in
        front of" names no object.
        """
        words = self.tag(text)
        kinds = "".join(_KIND.get(word.pos, "-") for word in words)
        phrases = []
        for match in _PHRASE.finditer(kinds):
            first, last = words[match.start()], words[match.end() - 1]
            if last.lemma not in _RELATIONAL:
                span = text[first.start : last.end]
                phrases.append(Phrase(span, last.lemma, first.start, last.end))
        return phrases


_KIND = {"DET": "d", "NUM": "c", "ADJ": "a", "NOUN": "n", "PROPN": "n"}
_PHRASE = re.compile(r"d?c?a*n+")
_RELATIONAL = frozenset({
    "front", "back", "side", "top", "bottom", "left", "right", "middle", "center", "centre",
    "edge", "end", "corner", "background", "foreground", "distance", "next", "inside", "outside",
    "group", "couple", "pair", "bunch", "lot", "kind", "type", "piece", "number", "set", "row",
    "one", "other", "someone", "something", "way", "variety", "view", "picture", "photo",
    "photograph", "image", "shot", "scene", "close", "day", "night", "time", "air",
})  # fmt: skip


def _mend(tokens: list[str], tags: list[str]) -> None:
    """Correct four mistakes of the tagger that are frequent in captions, in place.

    "a stop sign", "a teddy bear": a bare verb after a determiner, an adjective, a possessive, or
    "a" and a singular noun, is a noun. "A man rides": a plural after "a" and a singular noun is a
    verb. "two men hike": so is a singular noun after a plural. "a yellow key": the last of the
    adjectives after "a" is a noun if no noun follows.
    """
    one = False
    for i, tag in enumerate(tags):
        before = tags[i - 1] if i else ""
        inside = before == "NN" and one
        if tag in ("VB", "VBP") and (inside or before in ("DT", "JJ", "PRP$")):
            tags[i] = "NN"
        elif tag == "NNS" and inside:
            tags[i] = "VBZ"
        elif tag == "NN" and before == "NNS":
            tags[i] = "VBP"
        elif tag == "JJ" and one and before != "NN" and _ends(tags[i + 1 : i + 3]):
            tags[i] = "NN"
        if tokens[i].lower() in ("a", "an"):
            one = True
        elif tags[i] not in ("NN", "JJ"):
            one = False


def _ends(following: list[str]) -> bool:
    """Return True if the next tags can follow a noun phrase, or are "and" and another one."""
    if following[:1] in (["CC"], [","]):
        return following[1:] in (["DT"], ["CD"])
    return not following or following[0] in (".", "IN", "TO", "VBZ", "VBP", "WDT")


def _universal(token: str, tag: str) -> str:
    if not any(letter.isalnum() for letter in token):
        return "PUNCT"
    if _CLITIC.fullmatch(token):
        return "PART"
    if token.lower() in _BE:
        return "AUX"
    return _UNIVERSAL.get(tag.partition("-")[0], "X")


def _lemma(token: str, tag: str) -> str:
    return singular(token.lower()) if tag.startswith(("NNS", "NNPS")) else token.lower()


@lru_cache(maxsize=2**16)
def singular(word: str) -> str:
    """Return the singular of a plural noun in lower case, by TextBlob: "boxes" -> "box"."""
    from textblob.en.inflect import singularize

    return singularize(word)
