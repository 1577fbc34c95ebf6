"""Balanced half-truths: two texts and two images, each text the truer one of one image.

p is true of image A and false of image B, q the other way round. `with_p` and `with_q` are one
caption, the host, with p or q at the same place. Both texts are put to both images: A must prefer
`with_p`, B `with_q`. A scorer that does not look at the image prefers the same text for both and is
right for one of the two: nothing in the wording tells.

Only the captions tell the content of a picture: an object is in it if two captions name it (or the
only one), and absent if none does, under another name either. On scenes `is_true` makes it exact.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ascl_plugin.asymmetry.captions.attribute_pairs import AttributePairs, Told, double, single
from ascl_plugin.asymmetry.captions.edits import places, words
from ascl_plugin.asymmetry.captions.mentions import Mention, ReadCaption, ReadImage
from ascl_plugin.asymmetry.captions.objects import object_of
from ascl_plugin.asymmetry.captions.reader import CaptionReader, ObjectOf
from ascl_plugin.asymmetry.captions.tagger import Phrase

KINDS = ("added", "replaced noun", "replaced attribute", "swapped")
_TRIES = 30  # partners of an image
# Prepositions behind which "with" ties one more thing: "in the snow with a dog".
_LEADING = {
    "in", "on", "at", "by", "near", "beside", "behind", "under", "over", "above", "below", "around",
    "along", "across", "against", "inside", "outside", "through", "into", "onto", "from", "beneath",
}  # fmt: skip


@dataclass(frozen=True)
class BalancedPair:
    """Two texts, of which image A is to prefer the first and image B the second.

    Attributes:
        kind: one of `KINDS`.
        a, b: rows of the images.
        host: the caption that both texts are made of.
        with_p, with_q: the host with p (true of A alone), and with q (true of B alone).
    """

    kind: str
    a: int
    b: int
    host: str
    with_p: str
    with_q: str


def balanced_pairs(
    captions: Sequence[Sequence[str]],
    noun_phrases: Callable[[str], Sequence[Phrase]],
    seed: int = 0,
    count: int | None = None,
    kinds: Iterable[str] = KINDS,
    hosts: str = "both",
    is_true: Callable[[int, str], bool] | None = None,
    object_of: ObjectOf = object_of,
    rows: Iterable[int] | None = None,
) -> list[BalancedPair]:
    """Return balanced half-truths; arguments are those of `BalancedBank` and its `pairs`."""
    bank = BalancedBank(captions, noun_phrases, object_of, is_true)
    return bank.pairs(seed, count, rows, kinds, hosts)


class BalancedBank:
    """The captions of a data set, read once, from which balanced half-truths are drawn.

    - "added": the phrase p or q inserted behind the same phrase of the host.
    - "replaced noun": p in A's caption replaced by q, and q in B's by p; both of one thing, or
      both of several.
    - "replaced attribute": a colour, size, age or number (two and more) of the same noun: A has "a
      brown dog", B "a black dog", and the host is a caption with one of them.
    - "swapped": two attributes of the host exchanged: A has "a red car and a blue tree", B "a blue
      car and a red tree". Nouns are not swapped across a relation ("a dog behind a man"): captions
      hold next to no two images with both orders.

    Args:
        captions: all captions of each image.
        noun_phrases: function from a text to its noun phrases, such as `Tagger().noun_phrases`.
        object_of: function from a noun to the object it names, None for nouns never added.
        is_true: (row, phrase) -> True if a noun phrase is true of the image, where that is known.
            For attributes it takes the place of the captions' evidence.

    Raises:
        ValueError: captions of fewer than two images.
    """

    def __init__(
        self,
        captions: Sequence[Sequence[str]],
        noun_phrases: Callable[[str], Sequence[Phrase]],
        object_of: ObjectOf = object_of,
        is_true: Callable[[int, str], bool] | None = None,
    ) -> None:
        if len(captions) < 2:
            raise ValueError(f"captions of {len(captions)} images: a balanced pair needs two")
        reader = CaptionReader(functools.cache(noun_phrases), object_of)
        self._images = [ReadImage(row, texts, reader) for row, texts in enumerate(captions)]
        self._is_true = is_true
        self._person = object_of("person")

    def pairs(
        self,
        seed: int = 0,
        count: int | None = None,
        rows: Iterable[int] | None = None,
        kinds: Iterable[str] = KINDS,
        hosts: str = "both",
    ) -> list[BalancedPair]:
        """Return balanced pairs, a function of the arguments.

        Args:
            seed: seed of all that is drawn.
            count: pairs of images of each kind, or as many as there are; by default each row is A
                at most once.
            rows: rows that A and B are drawn from; by default all.
            kinds: names of `KINDS`.
            hosts: "both": two results for a pair of images, with a caption of A as the host and
                with one of B; "a": the first alone.

        Raises:
            ValueError: an unknown kind or hosts; a negative count; fewer than two rows.
        """
        kinds = list(kinds)
        chosen = range(len(self._images)) if rows is None else sorted(set(rows))
        if unknown := sorted(set(kinds) - set(KINDS)):
            raise ValueError(f"kinds: unknown {unknown}; known are {', '.join(KINDS)}")
        if hosts not in ("both", "a"):
            raise ValueError(f'hosts is {hosts!r}; it must be "both" or "a"')
        if count is not None and count < 0:
            raise ValueError(f"count is {count}; it must be at least 0")
        if len(chosen) < 2:
            raise ValueError(f"rows: {len(chosen)} rows; a balanced pair needs two")
        kept = 2 if hosts == "both" else 1
        found: list[BalancedPair] = []
        for kind in kinds:
            rng = np.random.default_rng([seed, KINDS.index(kind)])
            for both in self._passes(self._maker(kind, chosen, rng), chosen, count, rng):
                found += both[:kept]
        return found

    def _maker(
        self, kind: str, rows: Sequence[int], rng: np.random.Generator
    ) -> Callable[[int], list[BalancedPair]]:
        """Return a function from row A to its pairs with some B: host of A, host of B; or none."""
        if kind in ("added", "replaced noun"):
            offered = self._insertable if kind == "added" else self._replaceable
            make = self._added if kind == "added" else self._replaced
            able = [row for row in rows if offered[row]]

            def with_any(row: int) -> list[BalancedPair]:
                tries = _TRIES if able and offered[row] else 0
                for place in rng.integers(len(able), size=tries) if tries else ():
                    b = able[place]
                    p = self._false(offered[row], b, rng) if b != row else iter(())
                    found = make(row, b, p, self._false(offered[b], row, rng), rng)
                    if found:
                        return found
                return []

            return with_any
        told = self._doubles if kind == "swapped" else self._singles
        pairs = AttributePairs({row: told[row] for row in rows}, self._images, self._is_true)

        def with_match(row: int) -> list[BalancedPair]:
            match = pairs.match(row, rng)
            if match is None:
                return []
            own, own_with_q, b, other, other_with_p = match
            return [
                BalancedPair(kind, row, b, own, own, own_with_q),
                BalancedPair(kind, row, b, other, other_with_p, other),
            ]

        return with_match

    def _passes(
        self,
        make: Callable[[int], list[BalancedPair]],
        rows: Sequence[int],
        count: int | None,
        rng: np.random.Generator,
    ) -> Iterator[list[BalancedPair]]:
        """Yield the pairs of one pass over the rows; with a count, of passes until it is reached.

        A pass without anything new is the last.
        """
        seen: set[frozenset[tuple[int, int, str, str]]] = set()
        while True:
            before = len(seen)
            for place in rng.permutation(len(rows)):
                if len(seen) == count:
                    return
                both = make(rows[place])
                key = frozenset((one.a, one.b, one.with_p, one.with_q) for one in both)
                key |= frozenset((one.b, one.a, one.with_q, one.with_p) for one in both)
                if both and key not in seen:
                    seen.add(key)
                    yield both
            if count is None or len(seen) == before:
                return

    def _added(
        self,
        a: int,
        b: int,
        of_a: Iterator[Mention],
        of_b: Iterator[Mention],
        rng: np.random.Generator,
    ) -> list[BalancedPair]:
        p = next(of_a, None)
        q = next(of_b, None) if p else None
        if p is None or q is None:
            return []
        found = []
        for row, told in ((a, p), (b, q)):
            hosts = self._images[row].hosts(told)
            host = hosts[rng.integers(len(hosts))]
            at, joiner = free_place(host, rng)
            with_p, with_q = (
                f"{host.text[:at]} {joiner} {of.inserted}{host.text[at:]}" for of in (p, q)
            )
            found.append(BalancedPair("added", a, b, host.text, with_p, with_q))
        return found

    def _replaced(
        self,
        a: int,
        b: int,
        of_a: Iterator[Mention],
        of_b: Iterator[Mention],
        rng: np.random.Generator,
    ) -> list[BalancedPair]:
        p = next(of_a, None)
        q = next((q for q in of_b if q.one == p.one), None) if p else None
        if p is None or q is None:
            return []
        own, other = p.caption.text, q.caption.text
        return [
            BalancedPair("replaced noun", a, b, own, own, p.replaced_by(q.inserted)),
            BalancedPair("replaced noun", a, b, other, q.replaced_by(p.inserted), other),
        ]

    def _false(
        self, offered: Sequence[Mention], row: int, rng: np.random.Generator
    ) -> Iterator[Mention]:
        """Yield the mentions whose object an image lacks, in a drawn order."""
        image = self._images[row]
        yield from (
            offered[place] for place in rng.permutation(len(offered)) if image.lacks(offered[place])
        )

    @cached_property
    def _replaceable(self) -> list[list[Mention]]:
        """Phrases of each image that are true of it and fit into another sentence."""
        if self._is_true is None:
            return [image.confirmed for image in self._images]
        return [
            [one for one in image.offered if self._is_true(image.row, one.phrase.text)]
            for image in self._images
        ]

    @cached_property
    def _insertable(self) -> list[list[Mention]]:
        """Those whose object one of the image's captions does not name."""
        both = zip(self._images, self._replaceable, strict=True)
        return [[one for one in told if image.hosts(one)] for image, told in both]

    @cached_property
    def _singles(self) -> list[list[Told]]:
        exact = self._is_true is not None
        return [single(image, exact, lambda thing: thing == self._person) for image in self._images]

    @cached_property
    def _doubles(self) -> list[list[Told]]:
        return [double(told) for told in self._singles]


def free_place(host: ReadCaption, rng: np.random.Generator) -> tuple[int, str]:
    """Return the character of a place for one more phrase, and the word that ties it."""
    found = places(host.text, host.phrases)
    at = found[rng.integers(len(found))]
    before = [host.text[: phrase.start] for phrase in host.phrases if phrase.end == at]
    led = not before or not _LEADING.isdisjoint(words(before[0])[-1:])
    return at, "with" if led else "and"
