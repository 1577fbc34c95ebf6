"""The texts of the asymmetry benchmarks for a split: of scenes exact, else by the tagger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ascl_plugin.asymmetry.captions.balanced import KINDS, BalancedPair, balanced_pairs
from ascl_plugin.asymmetry.captions.objects import object_of
from ascl_plugin.asymmetry.captions.reader import ObjectOf
from ascl_plugin.asymmetry.captions.tagger import Phrase, Tagger
from ascl_plugin.asymmetry.captions.variants import Variants, make_variants
from ascl_plugin.interfaces import Row, Rows
from ascl_plugin.retrieval.asymmetry_benchmark import CONTESTS


class Reading(NamedTuple):
    """Functions that read the captions of a split.

    Attributes:
        noun_phrases: function from a text to its noun phrases.
        object_of: function from a noun to the object it names.
        is_true: (row, text) -> True if a text is true of the image; None if nobody knows.
    """

    noun_phrases: Callable[[str], Sequence[Phrase]]
    object_of: ObjectOf
    is_true: Callable[[int, str], bool] | None


def reading(rows: Rows) -> Reading:
    """Return how to read a split's captions: scenes by their facts, others by `Tagger`.

    Raises:
        ImportError: real captions, and no tagger (extra `words`).
    """
    if "facts" not in getattr(rows, "column_names", ()):
        return Reading(Tagger().noun_phrases, object_of, None)
    from ascl_plugin.data.scene_phrases import facts, noun_phrases

    known = [set(each) for each in rows["facts"]]
    return Reading(noun_phrases, str, lambda row, text: facts(text) <= known[row])


def variants_of(rows: Rows, chosen: Iterable[int] | None = None) -> list[Variants]:
    """Return variants of the first captions of rows, by default of all; see `make_variants`."""
    how = reading(rows)
    return make_variants(
        rows["captions"][:],
        how.noun_phrases,
        chosen,
        is_true=how.is_true,
        object_of=how.object_of,
    )


def half_truths_of(rows: Rows) -> dict[str, list[Row]]:
    """Return the half-truths of a split, for `contest_benchmark`; no language model makes them.

    The contest of CS-CLIP (Kargi et al. 2026, arXiv 2602.23906): a true text against itself plus
    one false detail, here a noun phrase of another image whose object no caption names. "add": the
    text is the first caption; `richer` has a phrase of another caption of the image in the same
    place. "add, shorter": the caption less a phrase, against the same false text; names are those
    of `variant_benchmark`.

    Raises:
        ValueError: no caption takes a false phrase.
    """
    made = [one for one in variants_of(rows) if "add" in one.negatives]
    if not made:
        raise ValueError("no caption of the split takes a false phrase, thus no half-truths")
    found: dict[str, list[Row]] = {}
    for name in ("add", "add, shorter"):
        true, false = CONTESTS[name]
        found[name] = [
            {
                **rows[one.row],
                "true": [one.positives[true]],
                "false": [one.negatives[false]],
                "richer": one.positives.get("phrase added") if name == "add" else None,
            }
            for one in made
            if true in one.positives
        ]
    return {name: some for name, some in found.items() if some}


def balanced_of(
    rows: Rows, count: int | None = None, seed: int = 0, kinds: Iterable[str] = KINDS
) -> list[BalancedPair]:
    """Return balanced half-truths of a split, `count` pairs of images of each kind.

    See `BalancedBank.pairs`; by default each row is image A at most once.
    """
    how = reading(rows)
    return balanced_pairs(
        rows["captions"][:],
        how.noun_phrases,
        seed,
        count,
        kinds,
        is_true=how.is_true,
        object_of=how.object_of,
    )
