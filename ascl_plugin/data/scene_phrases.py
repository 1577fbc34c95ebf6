"""The noun phrases and facts of the embedded scenes' sentences, read back exactly."""

from __future__ import annotations

import re

from ascl_plugin.asymmetry.captions.tagger import Phrase
from ascl_plugin.data.drawing import COLOURS, GROUNDS
from ascl_plugin.data.sentences import Mention, Sentence
from ascl_plugin.data.shapes import NOUNS

_SINGULAR = {Mention(noun, 2, "", "", ()).words().split()[-1]: noun for noun in NOUNS}
_GROUNDS = "|".join(GROUNDS)
_MENTION = re.compile(
    r"\b(?P<number>an|a|two|three)(?: (?P<size>small|large))?"
    rf"(?: (?P<colour>{'|'.join(COLOURS)}))? (?P<noun>{'|'.join([*_SINGULAR, *NOUNS])})\b"
    r"(?: (?:on|at|in) the (?P<places>(?:top|bottom|left|right|middle)(?: (?:left|right))?))?"
)


def noun_phrases(text: str) -> list[Phrase]:
    """Return the noun phrase of each group of objects, place included, in order.

    >>> [(p.text, p.head) for p in noun_phrases("a red car with two boxes on the left at night")]
    [('a red car', 'car'), ('two boxes on the left', 'box')]
    """
    return [
        Phrase(found[0], _noun(found), found.start(), found.end())
        for found in _MENTION.finditer(text)
    ]


def facts(text: str) -> set[str]:
    """Return the information set of a sentence, in the wording of `ascl_plugin.data.scenes`.

    >>> sorted(facts("a red car at night"))
    ['car:red', 'count:car:1', 'ground:night', 'noun:car']
    """
    mentions = tuple(
        Mention(
            _noun(found),
            {"two": 2, "three": 3}.get(found["number"], 1),
            found["colour"] or "",
            found["size"] or "",
            tuple((found["places"] or "").split()),
        )
        for found in _MENTION.finditer(text)
    )
    ground = re.search(rf"(?:^| )(?:on|in|at)(?: a| the)? ({_GROUNDS})$", text)
    return Sentence(mentions, ground[1] if ground else "", "", "and").facts()


def _noun(found: re.Match[str]) -> str:
    return _SINGULAR.get(found["noun"], found["noun"])
