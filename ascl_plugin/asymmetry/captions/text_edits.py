"""Negatives and positives of a caption made in its text, from the captions of a data set.

The noises of `ascl_plugin.asymmetry.embedding` blur a caption; these edits add, exchange or remove
one thing, as in Definitions 2 to 4 of the ACF-R+ paper. Only the captions tell the content of an
image: a thing in none of them passes for absent, so some negatives are true of their image. A thing
that is likely there all the same (`Naming`) is drawn less often, in proportion to that chance.

Balanced: where an edit makes positives as well, truth and lie come from one and the same rule. The
lie's phrase is drawn of another image just as the truth's is of this one, so that over a data set a
phrase is added as a truth as often as it is as a lie, and tells nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ascl_plugin.asymmetry.captions.attribute_pairs import double, said_of_noun, single
from ascl_plugin.asymmetry.captions.attributes import Attribute, exchanged, values_of
from ascl_plugin.asymmetry.captions.balanced import free_place
from ascl_plugin.asymmetry.captions.edits import swapped_nouns, without_phrase
from ascl_plugin.asymmetry.captions.mentions import Mention, ReadCaption, ReadImage
from ascl_plugin.asymmetry.captions.naming import Naming
from ascl_plugin.asymmetry.captions.objects import object_of
from ascl_plugin.asymmetry.captions.reader import CaptionReader, ObjectOf
from ascl_plugin.asymmetry.captions.relations import Relation, relations_of
from ascl_plugin.asymmetry.captions.tagger import Phrase, Tagger

#: Edits that make a text false; "mixed_text" draws one of the others.
NEGATIVE_EDITS = ("insert", "replace", "swap", "mixed_text")
#: Edits that keep it true.
POSITIVE_EDITS = ("insert", "replace", "remove", "mixed_text")
_TRIES = 50  # captions of other images tried


class Change(NamedTuple):
    """A phrase to put in the place of another, or to add."""

    old: Mention | None
    new: Mention


Offered = Callable[[ReadImage, ReadCaption], list[Change]]


class TextEdits:
    """Edits of captions, with phrases and attributes of a data set's captions.

    ============  ==================================  ===========================================
    edit          negative                            positive
    ============  ==================================  ===========================================
    `insert`      a phrase that no caption of the     one of the image's other captions (two of
                  image names, added                  them name it), added
    `replace`     a phrase replaced by one that no    by another caption's phrase for the thing
                  caption names; an attribute, by
                  one that none of them tells; or a
                  relation ("behind"), by its
                  opposite
    `swap`        two nouns exchanged, or two         none
                  attributes
    `remove`      none                                a phrase left out
    ============  ==================================  ===========================================

    A negative that cannot be made is made by `replace` or `insert`; such a positive is its text.

    Args:
        captions: all captions of each image.
        noun_phrases: function from a text to its noun phrases; by default `Tagger`'s.
        object_of: function from a noun to the object it names, None for nouns never added.
        progress: True for a progress bar.

    Raises:
        ValueError: no caption holds a phrase that can be inserted.
        ImportError: the tagger's library is not installed.
    """

    def __init__(
        self,
        captions: Sequence[Sequence[str]],
        noun_phrases: Callable[[str], Sequence[Phrase]] | None = None,
        object_of: ObjectOf = object_of,
        progress: bool = False,
    ) -> None:
        from tqdm.auto import tqdm

        self._tagged = Tagger().noun_phrases if noun_phrases is None else noun_phrases
        self._known: dict[str, Sequence[Phrase]] = {}  # of the data set: those of texts are tagged
        self._reader = CaptionReader(self._phrases, object_of)
        bar = tqdm(captions, "noun phrases", unit="image", disable=not progress)
        self._images = [self._read(texts, keep=True) for texts in bar]
        self._of_captions = {_key(image): image for image in self._images}
        self._offering = [image for image in self._images if image.offered]
        if not self._offering:
            raise ValueError(f"no caption of {len(captions)} images holds a phrase to insert")
        self._offers = [one for image in self._offering for one in image.offered]
        self._naming = Naming(
            [caption.content.objects for caption in image.captions] for image in self._images
        )
        self._relations: dict[int, list[Relation]] = defaultdict(list)
        for image in self._images:
            for caption in image.captions:
                for relation in relations_of(caption.text):
                    self._relations[relation.pair].append(relation)
        self._attributes: dict[tuple[str, str], list[Attribute]] = defaultdict(list)
        for image in self._images:
            for (told,) in single(image, False, self._is_person):
                self._attributes[told.attribute.kind, told.head].append(told.attribute)

    def negative(
        self, text: str, captions: Sequence[str], edit: str, rng: np.random.Generator
    ) -> str:
        """Return a false text.

        Args:
            text: a caption of the image, or a positive generated from its captions.
            captions: all captions of the image.
            edit: one of `NEGATIVE_EDITS`.
            rng: the only source of chance.

        Raises:
            ValueError: an unknown edit, or no phrase that the captions do not name.
        """
        _check(edit, NEGATIVE_EDITS)
        if edit == "mixed_text":
            edit = NEGATIVE_EDITS[rng.integers(3)]
        image, own = self._image(captions), self._caption(text)
        found = self._swapped(image, own, rng) if edit == "swap" else None
        if found is None and edit != "insert":
            makers = [self._replaced, self._described, self._related]
            for maker in (makers[i] for i in rng.permutation(3)):
                found = found or maker(image, own, rng)
        return found or self._inserted(image, own, rng)

    def positive(
        self, text: str, captions: Sequence[str], edit: str, rng: np.random.Generator
    ) -> str:
        """Return another true text, or `text` if the edit is impossible; see `negative`."""
        _check(edit, POSITIVE_EDITS)
        if edit == "mixed_text":
            edit = POSITIVE_EDITS[rng.integers(3)]
        image, own = self._image(captions), self._caption(text)
        if edit == "remove":
            return without_phrase(text, own.phrases, rng) or text
        maker = self._insertable if edit == "insert" else self._renamed
        change, _ = self._both(image, own, maker, rng)
        return text if change is None else self._changed(own, change, rng)

    def _both(
        self, image: ReadImage, own: ReadCaption, offered: Offered, rng: np.random.Generator
    ) -> tuple[Change | None, Change | None]:
        """Return a true change of a text, and one that is true of another image; None if not found.

        Each is false of the other image. Drawn together and alike, either is as likely of a thing.
        """
        mine = offered(image, own)
        true = mine[rng.integers(len(mine))] if mine else None
        for _ in range(_TRIES):
            other = self._offering[rng.integers(len(self._offering))]
            theirs = offered(other, other.captions[rng.integers(len(other.captions))])
            if len(other.captions) == 1:
                theirs = [Change(None, one) for one in other.offered]
            if not theirs:
                continue
            true = mine[rng.integers(len(mine))] if mine else None
            false = theirs[rng.integers(len(theirs))]
            if not image.lacks(false.new) or not (true is None or _fit(true, false, other)):
                continue
            if rng.random() >= self._naming.chance(false.new.thing, len(image.captions)):
                return true, false
        return true, None

    def _changed(self, own: ReadCaption, change: Change, rng: np.random.Generator) -> str:
        """Return the text with a phrase in the place of another, or added."""
        phrase = change.new.inserted
        if change.old is not None:
            return change.old.replaced_by(phrase)
        at, joiner = free_place(own, rng)
        return f"{own.text[:at]} {joiner} {phrase}{own.text[at:]}"

    def _inserted(self, image: ReadImage, own: ReadCaption, rng: np.random.Generator) -> str:
        change = self._both(image, own, self._insertable, rng)[1]
        if change is None:
            drawn = (self._offers[i] for i in rng.integers(len(self._offers), size=_TRIES))
            one = next(filter(image.lacks, drawn), None)
            left = [one] if one else [one for one in self._offers if image.lacks(one)]
            if not left:
                texts = [caption.text for caption in image.captions]
                raise ValueError(
                    "no noun phrase of another image can be inserted: the captions "
                    f"{texts} name all"
                )
            change = Change(None, left[rng.integers(len(left))])
        return self._changed(own, change, rng)

    def _replaced(self, image: ReadImage, own: ReadCaption, rng: np.random.Generator) -> str | None:
        true, false = self._both(image, own, self._renamed, rng)
        old = [one for one in self._mentions(own) if false is not None and one.one == false.new.one]
        if false is None or not (true or old):
            return None
        before = old[rng.integers(len(old))] if true is None else true.old
        return self._changed(own, Change(before, false.new), rng)

    def _described(
        self, image: ReadImage, own: ReadCaption, rng: np.random.Generator
    ) -> str | None:
        told = single(self._read([own.text]), False, self._is_person)
        for (one,) in (told[i] for i in rng.permutation(len(told))):
            kind = one.attribute.kind
            others = self._attributes.get((kind, one.head), [])
            said = values_of(image.content.words, kind) | one.attribute.values
            for i in rng.integers(len(others), size=_TRIES) if others else ():
                if others[i].values.isdisjoint(said):
                    return exchanged(own.text, {one.attribute: others[i].word})
        return None

    def _related(self, image: ReadImage, own: ReadCaption, rng: np.random.Generator) -> str | None:
        said = [one for caption in image.captions for one in relations_of(caption.text)]
        found = relations_of(own.text)
        for old in (found[i] for i in rng.permutation(len(found))):
            others = self._relations.get(old.pair, [])
            # one draw: a side takes the place of the other as often as captions have it
            new = others[rng.integers(len(others))] if others else old
            if old.excludes(new) and not any(one.excludes(old) for one in (*said, *found)):
                word = new.word.capitalize() if own.text[old.start].isupper() else new.word
                return own.text[: old.start] + word + own.text[old.end :]
        return None

    def _swapped(self, image: ReadImage, own: ReadCaption, rng: np.random.Generator) -> str | None:
        found = swapped_nouns(own.text, own.phrases, self._reader.object_of, rng)[:1]
        for first, second in double(single(self._read([own.text]), False, self._is_person)):
            x, y = first.attribute, second.attribute
            false = all(
                other.values.isdisjoint(
                    said_of_noun(image, one.head, x.kind) | one.attribute.values
                )
                for one, other in ((first, y), (second, x))
            )
            if false:
                found.append(exchanged(own.text, {x: y.word, y: x.word}))
        return found[rng.integers(len(found))] if found else None

    def _insertable(self, image: ReadImage, own: ReadCaption) -> list[Change]:
        """Return additions of things that two captions name, and the text does not."""
        return [
            Change(None, one)
            for one in image.confirmed
            if own.content.lacks(one.thing, one.phrase.head)
        ]

    def _renamed(self, image: ReadImage, own: ReadCaption) -> list[Change]:
        """Return replacements of phrases by those of other captions for the same things.

        Of a thing of which no caption has two: "a man" and "a boy" beside it are two.
        """
        twice = {
            thing
            for caption in (*image.captions, own)
            for thing, count in Counter(self._things(caption)).items()
            if count > 1
        }
        return [
            Change(old, new)
            for old in self._mentions(own)
            for new in image.offered
            if old.thing == new.thing not in twice
            and old.one == new.one
            and old.inserted != new.inserted
        ]

    def _things(self, caption: ReadCaption) -> list[str | None]:
        return [self._reader.object_of(phrase.head) for phrase in caption.phrases]

    def _mentions(self, own: ReadCaption) -> list[Mention]:
        both = zip(own.phrases, self._things(own), strict=True)
        found = [Mention(own, phrase, thing) for phrase, thing in both]
        return [one for one in found if one.inserted]

    def _is_person(self, thing: str | None) -> bool:
        return thing == self._reader.object_of("person")

    def _image(self, captions: Sequence[str]) -> ReadImage:
        return self._of_captions.get(tuple(captions)) or self._read(captions)

    def _caption(self, text: str) -> ReadCaption:
        return ReadCaption(text, self._phrases(text), self._reader.content(text))

    def _read(self, captions: Sequence[str], keep: bool = False) -> ReadImage:
        if keep:
            self._known |= {text: self._tagged(text) for text in captions}
        return ReadImage(0, captions, self._reader)

    def _phrases(self, text: str) -> Sequence[Phrase]:
        found = self._known.get(text)
        return self._tagged(text) if found is None else found


def _fit(true: Change, false: Change, other: ReadImage) -> bool:
    """Return True if another image lacks the true change, and both are of as many things."""
    alike = true.old is None or true.new.one == false.new.one
    return alike and other.lacks(true.new)


def _key(image: ReadImage) -> tuple[str, ...]:
    return tuple(caption.text for caption in image.captions)


def _check(edit: str, known: Sequence[str]) -> None:
    if edit not in known:
        raise ValueError(f"edit must be one of {', '.join(known)}, got {edit!r}")
