"""The objects that captions name, and those that none of an image's captions name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ascl_plugin.asymmetry.captions.edits import opens, words
from ascl_plugin.asymmetry.captions.tagger import Phrase

#: A function from a noun to the object it names, None for nouns that are never added.
ObjectOf = Callable[[str], str | None]


@dataclass(frozen=True)
class Content:
    """The content of one text or several.

    Attributes:
        objects: objects that any word may name, of any part of speech.
        words: the words and marks, in lower case.
    """

    objects: frozenset[str | None]
    words: frozenset[str]

    def __or__(self, other: Content) -> Content:
        return Content(self.objects | other.objects, self.words | other.words)

    def lacks(self, thing: str | None, head: str) -> bool:
        """Return True if neither an object nor its noun is named.

        A word that begins like the noun is its plural, a compound or a derivative; one that ends
        like it ("basketball") is a compound.
        """
        return thing not in self.objects and not any(
            word.startswith(head) or (len(head) > 2 and word.endswith(head)) for word in self.words
        )


@dataclass(frozen=True)
class CaptionReader:
    """A reader of the objects that a text names.

    Args:
        phrases: function from a text to its noun phrases, such as `Tagger().noun_phrases`.
        object_of: function from a noun to the object it names.
    """

    phrases: Callable[[str], Sequence[Phrase]]
    object_of: ObjectOf

    def content(self, text: str) -> Content:
        """Return the content of a text."""
        said = frozenset(words(text))
        heads = (phrase.head for phrase in self.phrases(text))
        return Content(frozenset(map(self.object_of, (*said, *heads))), said)

    def offered(self, text: str) -> list[tuple[str, Phrase]]:
        """Return (object, phrase) of a text's phrases that fit into another text."""
        found = []
        for phrase in self.phrases(text):
            thing = self.object_of(phrase.head)
            if thing is not None and opens(phrase):
                inside = phrase.text[0].lower() + phrase.text[1:]
                found.append((thing, phrase._replace(text=inside)))
        return found
