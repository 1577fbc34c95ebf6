"""The captions of an image, read once: the phrases in them, and what they name."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ascl_plugin.asymmetry.captions.attributes import attributes_of
from ascl_plugin.asymmetry.captions.edits import OPENERS, opens, words
from ascl_plugin.asymmetry.captions.reader import CaptionReader, Content
from ascl_plugin.asymmetry.captions.tagger import Phrase

_ONE = {"a", "an", "one"}
# Nouns that are plural for a single thing.
_PAIRS = {"pant", "short", "jean", "trunk", "glass", "goggle", "sunglass"}


@dataclass(frozen=True, eq=False)
class ReadCaption:
    """A caption, its noun phrases and its content."""

    text: str
    phrases: Sequence[Phrase]
    content: Content


@dataclass(frozen=True, eq=False)
class Mention:
    """A noun phrase of a caption.

    Attributes:
        caption: the caption.
        phrase: the phrase.
        thing: the object that its head names, or None.
    """

    caption: ReadCaption
    phrase: Phrase
    thing: str | None

    @cached_property
    def inserted(self) -> str:
        """The phrase inside another sentence; "" if it does not fit there.

        A phrase fits that introduces a thing: "a dog", no "the dog", no "a bowl" of soup.
        """
        text = self.phrase.text
        following = self.caption.text[self.phrase.end :].lstrip().lower()
        if self.thing is None or len(self.phrase.head) < 3 or not opens(self.phrase):
            return ""
        if following.startswith(("of ", "'", "’", "-")):
            return ""
        return text[0].lower() + text[1:]

    @cached_property
    def one(self) -> bool:
        """True if "a", "an" or "one" opens the phrase."""
        return self.phrase.text.lower().split()[0] in _ONE

    @cached_property
    def several(self) -> bool:
        """True if the phrase is of more things than one."""
        said = words(self.phrase.text)
        if said[0] in OPENERS - _ONE:
            return True
        return said[-1] != self.phrase.head and self.phrase.head not in _PAIRS

    @cached_property
    def number(self) -> frozenset[str] | None:
        """The number of things told, None for an unknown number of them."""
        told = attributes_of(self.caption.text, self.phrase)
        numbers = [each.values for each in told if each.kind == "number"]
        if numbers:
            return numbers[0]
        return None if self.several else frozenset({"one"})

    def replaced_by(self, text: str) -> str:
        """Return the caption with another text in the place of the phrase."""
        if self.phrase.text[0].isupper():
            text = text[0].upper() + text[1:]
        return self.caption.text[: self.phrase.start] + text + self.caption.text[self.phrase.end :]


class ReadImage:
    """The captions of one image.

    Args:
        row: row of the image.
        captions: all its captions.
        reader: reader of them.

    Attributes:
        captions, mentions: captions and all their noun phrases.
        offered: phrases that fit into another sentence.
        content: content of all captions.
    """

    def __init__(self, row: int, captions: Sequence[str], reader: CaptionReader) -> None:
        self.row = row
        self.captions = [
            ReadCaption(text, reader.phrases(text), reader.content(text)) for text in captions
        ]
        self.mentions = [
            Mention(caption, phrase, reader.object_of(phrase.head))
            for caption in self.captions
            for phrase in caption.phrases
        ]
        self.offered = [mention for mention in self.mentions if mention.inserted]
        contents = [caption.content for caption in self.captions]
        empty = Content(frozenset(), frozenset())
        self.content = functools.reduce(Content.__or__, contents, empty)
        self._named = Counter(thing for content in contents for thing in content.objects)

    @cached_property
    def confirmed(self) -> list[Mention]:
        """Those offered of objects that two captions name, or the only one."""
        enough = min(2, len(self.captions))
        return [one for one in self.offered if self._named[one.thing] >= enough]

    def lacks(self, mention: Mention) -> bool:
        """Return True if no caption names the object of a mention."""
        return self.content.lacks(mention.thing, mention.phrase.head)

    def hosts(self, mention: Mention) -> list[ReadCaption]:
        """Return the captions that do not name the object of a mention."""
        head = mention.phrase.head
        return [own for own in self.captions if own.content.lacks(mention.thing, head)]
