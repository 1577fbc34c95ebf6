"""Information asymmetry between an image and a text, as sets of facts (ACF-R+ paper, section 3.2).

A is the set of facts of the image, B that of the text, of strings or anything hashable. They are
unknown for photographs and known exactly for the embedded scenes.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Literal

from ascl_plugin.interfaces import Row


def information_asymmetry(
    image_facts: Collection[Hashable], text_facts: Collection[Hashable]
) -> frozenset[Hashable]:
    """Return A symmetric-difference B, the facts of one side only (Definition 1, equation 1).

    For a true text (B within A) it is A - B, equation 2.

    >>> sorted(information_asymmetry({"noun:car", "car:red"}, {"noun:car", "noun:kite"}))
    ['car:red', 'noun:kite']
    """
    return frozenset(image_facts) ^ frozenset(text_facts)


def asymmetry_type(
    image_facts: Collection[Hashable],
    text_facts: Collection[Hashable],
    variant_facts: Collection[Hashable],
) -> Literal["I", "II", "III"] | None:
    """Return the type of a variant of a text, Definitions 2 to 4.

    With A of the image, B of the text and V of the variant:

    - "I" (Definition 2): V = B + X with X not within A: it adds something false.
    - "II" (Definition 3): V = B + X, X not empty and within A - B: it adds true facts only.
    - "III" (Definition 4): V = B - X, X not empty: it says less and nothing else.
    - None: V = B, or V both adds to B and takes from it.

    Definitions 3 and 4 also print that B + X, or B - X, is not within A. Their equations 4 and 5
    hold for a text within A only, so that clause is taken for a slip and not required.

    >>> [asymmetry_type("abc", "ab", variant) for variant in ("abcx", "abc", "a", "ac")]
    ['I', 'II', 'III', None]
    """
    image, text, variant = frozenset(image_facts), frozenset(text_facts), frozenset(variant_facts)
    if variant > text:
        return "II" if variant - text <= image else "I"
    return "III" if variant < text else None


def asymmetry_statistics(rows: Iterable[Row]) -> dict[str, float]:
    """Return the asymmetry of images and their captions, over all pairs of a dataset.

    Args:
        rows: one per image: `facts` (its A) and `caption_facts` (the B of each caption), as in
            the rows of `ascl_plugin.data.scenes.make`.

    Returns:
        `pairs`: the number of image-caption pairs; per pair, the means `image_facts` |A|,
        `text_facts` |B|, `image_only` |A - B| and `text_only` |B - A|; `image_holds_more`: the
        share of pairs (0 to 1) with |A| > |B|.

    Raises:
        ValueError: a row lacks a column, or there are no pairs.
    """
    pairs: list[tuple[frozenset[Hashable], frozenset[Hashable]]] = []
    for number, row in enumerate(rows):
        for column in ("facts", "caption_facts"):
            if column not in row:
                raise ValueError(
                    f"row {number} has no column {column!r}: information sets are known for the "
                    "embedded scenes only (ascl_plugin.data.scenes)"
                )
        pairs += [(frozenset(row["facts"]), frozenset(facts)) for facts in row["caption_facts"]]
    if not pairs:
        raise ValueError("no image-caption pairs: the rows are empty or have no captions")
    total = len(pairs)
    return {
        "pairs": total,
        "image_facts": sum(len(a) for a, _ in pairs) / total,
        "text_facts": sum(len(b) for _, b in pairs) / total,
        "image_only": sum(len(a - b) for a, b in pairs) / total,
        "text_only": sum(len(b - a) for a, b in pairs) / total,
        "image_holds_more": sum(len(a) > len(b) for a, b in pairs) / total,
    }


def outnumbering(
    object_counts: Sequence[int], word_counts: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Return the shares of pairs with more objects in the image than words in the caption.

    Args:
        object_counts: number of objects of each image.
        word_counts: for each image, the number of words of each caption.

    Returns:
        `pairs`: image-caption pairs; per pair, the means `objects` and `words`; the shares (0 to 1)
        of pairs with `more` objects than words and with `equal` numbers.

    Raises:
        ValueError: different numbers of images, or no pairs.

    >>> outnumbering([5, 2], [[4, 5], [3, 1]])
    {'pairs': 4, 'objects': 3.5, 'words': 3.25, 'more': 0.5, 'equal': 0.25}
    """
    if len(object_counts) != len(word_counts):
        raise ValueError(f"objects of {len(object_counts)} images, words of {len(word_counts)}")
    pairs = [
        (objects, words)
        for objects, counts in zip(object_counts, word_counts, strict=True)
        for words in counts
    ]
    if not pairs:
        raise ValueError("no image-caption pairs: there are no images or no captions")
    return {
        "pairs": len(pairs),
        "objects": sum(objects for objects, _ in pairs) / len(pairs),
        "words": sum(words for _, words in pairs) / len(pairs),
        "more": sum(objects > words for objects, words in pairs) / len(pairs),
        "equal": sum(objects == words for objects, words in pairs) / len(pairs),
    }
