"""Words for where one thing is beside another, in pairs of sides that exclude each other."""

from __future__ import annotations

import re
from typing import NamedTuple

_SIDES = (
    ("in front of", "behind"),
    ("above|over|on top of", "under|underneath|below|beneath"),
    ("inside", "outside"),
    ("into", "out of"),
    (r"up(?= (?:a|an|the)\b)", r"down(?= (?:a|an|the)\b)"),
)
_SIDE = re.compile(
    r"\b(?:" + "|".join(f"(?P<s{i}_{j}>{side})" for i, two in enumerate(_SIDES) for j, side in
    enumerate(two)) + r")\b",
    re.IGNORECASE,
)  # fmt: skip


class Relation(NamedTuple):
    """A relation in a text, `text[start:end]`.

    Attributes:
        word: the words, in lower case.
        pair: which pair of sides they belong to.
        side: 0 or 1.
    """

    word: str
    pair: int
    side: int
    start: int
    end: int

    def excludes(self, other: Relation) -> bool:
        """Return True for two sides of one pair."""
        return self.pair == other.pair and self.side != other.side


def relations_of(text: str) -> list[Relation]:
    """Return the relations of a text.

    >>> [r.word for r in relations_of("A dog in front of a man behind a car goes up the hill")]
    ['in front of', 'behind', 'up']
    """
    found = []
    for match in _SIDE.finditer(text):
        assert match.lastgroup is not None
        pair, side = map(int, match.lastgroup[1:].split("_"))
        found.append(Relation(match[0].lower(), pair, side, *match.span()))
    return found
