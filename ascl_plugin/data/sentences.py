"""The sentences of the embedded scenes: first their content, then the words.

A `Mention` is the part of a sentence about one group of objects; a `Sentence` is mentions in order
and a wording. Both give the facts they state, in the wording of `ascl_plugin.data.scenes`.
"""

from __future__ import annotations

from dataclasses import dataclass

OPENINGS = ("", "", "", "there {be}", "you can see")
JOINERS = ("and", "with")

_PLURALS = {"box": "boxes", "fish": "fish"}
_NUMBERS = {1: "a", 2: "two", 3: "three"}
_GROUNDS = {
    "meadow": "on a meadow",
    "sand": "on the sand",
    "snow": "in the snow",
    "night": "at night",
    "sea": "on the sea",
}


@dataclass(frozen=True)
class Mention:
    """The part of a sentence about one group of objects: noun and number, and maybe more.

    Attributes:
        noun: the singular.
        count: 1 to 3.
        colour: colour word, empty where the sentence leaves it out.
        size: "large", "small" or empty.
        places: at most two of left, right, top, bottom, middle; top or bottom comes first.
    """

    noun: str
    count: int
    colour: str
    size: str
    places: tuple[str, ...]

    def facts(self) -> set[str]:
        """Return the facts said."""
        said = [word for word in (self.colour, self.size, *self.places) if word]
        return {
            f"noun:{self.noun}",
            f"count:{self.noun}:{self.count}",
            *(f"{self.noun}:{word}" for word in said),
        }

    def words(self) -> str:
        """Return the noun phrase, such as "two small red stars at the top"."""
        noun = _PLURALS.get(self.noun, self.noun + "s") if self.count > 1 else self.noun
        phrase = " ".join(word for word in (self.size, self.colour, noun) if word)
        number = "an" if self.count == 1 and phrase[0] in "aeiou" else _NUMBERS[self.count]
        if not self.places:
            return f"{number} {phrase}"
        before = {"left": "on", "right": "on", "middle": "in"}.get(self.places[0], "at")
        return f"{number} {phrase} {before} the {' '.join(self.places)}"


@dataclass(frozen=True)
class Sentence:
    """A caption before it is words: mentions in order, maybe a ground, and a wording.

    Attributes:
        mentions: one or more.
        ground: a ground, empty where the sentence leaves it out.
        opening: one of `OPENINGS`.
        joiner: word between the first two mentions; later ones are joined by "and".
    """

    mentions: tuple[Mention, ...]
    ground: str
    opening: str
    joiner: str

    def facts(self) -> set[str]:
        """Return the information set B of the sentence."""
        said = set().union(*(mention.facts() for mention in self.mentions))
        return said | {f"ground:{self.ground}"} if self.ground else said

    def words(self) -> str:
        """Return the sentence: lower-case words, single spaces, no punctuation."""
        first, *others = (mention.words() for mention in self.mentions)
        joined = [f"{'and' if k else self.joiner} {words}" for k, words in enumerate(others)]
        be = "is" if self.mentions[0].count == 1 else "are"
        ground = _GROUNDS[self.ground] if self.ground else ""
        parts = [self.opening.format(be=be), first, *joined, ground]
        return " ".join(part for part in parts if part)
