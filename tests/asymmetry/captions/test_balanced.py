"""Balanced half-truths: made by hand, exact on scenes, drawn by a seed."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("datasets", reason="extra `recipes`")
from ascl_plugin.asymmetry.captions.attributes import attributes_of
from ascl_plugin.asymmetry.captions.balanced import (
    KINDS,
    BalancedBank,
    balanced_pairs,
)
from ascl_plugin.asymmetry.captions.tagger import Phrase
from ascl_plugin.data import scenes
from ascl_plugin.data.scene_phrases import facts, noun_phrases

SIZE = 200


@pytest.fixture(scope="module")
def rows():
    return scenes.make("test", SIZE)


@pytest.fixture(scope="module")
def bank(rows, known):
    return BalancedBank(
        rows["captions"][:], noun_phrases, str, lambda row, text: facts(text) <= known[row]
    )


def phrases(text):
    """ "a brown dog", "two dogs" are phrases; the head loses a final s."""
    pattern = r"\b(?:[Aa]n?|[Tt]wo|[Tt]hree|the)(?: (?:brown|black|red|blue|orange|big))? (\w+)"
    return [
        Phrase(m[0], m[1].removesuffix("s").lower(), m.start(), m.end())
        for m in re.finditer(pattern, text)
    ]


def drawn(captions, kind, **options):
    """Return {host: {row: text that the row prefers}} of all pairs."""
    found = balanced_pairs(captions, phrases, kinds=[kind], **options)
    return {one.host: {one.a: one.with_p, one.b: one.with_q} for one in found}


def test_added_by_hand():
    """p = "a dog", q = "a kite": A's "bikers" have bikes, and one caption alone tells of a tent.

    The hosts are the captions that do not tell of the thing. "In" leads the water: "with".
    """
    captions = [
        ["A dog near the fence", "bikers pass the fence", "a dog near bikers"],
        ["A kite and a bike and a tent", "a kite", "swimming in the water at night ."],
    ]
    assert drawn(captions, "added") == {
        "bikers pass the fence": {
            0: "bikers pass the fence and a dog",
            1: "bikers pass the fence and a kite",
        },
        "swimming in the water at night .": {
            0: "swimming in the water with a dog at night .",
            1: "swimming in the water with a kite at night .",
        },
    }
    of_a = balanced_pairs(captions, phrases, kinds=["added"], hosts="a")
    assert len(of_a) == 1 and (of_a[0].host == "bikers pass the fence") == (of_a[0].a == 0)


def test_replaced_noun_by_hand():
    """One thing is replaced by one thing, several by several: two birds have no match in A."""
    captions = [
        ["A brown dog runs", "A brown dog runs"],
        ["two birds and a kite", "two birds and a kite"],
    ]
    assert drawn(captions, "replaced noun") == {
        "A brown dog runs": {0: "A brown dog runs", 1: "A kite runs"},
        "two birds and a kite": {0: "two birds and a brown dog", 1: "two birds and a kite"},
    }


def test_replaced_attribute_by_hand():
    """ "an orange", "a blue"; the third image says blue and orange, the last has two hats."""
    captions = [
        ["a man with an orange hat", "a hat"],
        ["A blue hat", "the beach"],
        ["a blue hat", "an orange kite"],
        ["a red hat", "two hats"],
    ]
    found = drawn(captions, "replaced attribute", count=20)
    assert found["a man with an orange hat"] == {
        0: "a man with an orange hat", 1: "a man with a blue hat",
    }  # fmt: skip
    assert found["A blue hat"] == {0: "An orange hat", 1: "A blue hat"}
    assert set(found) == {"a man with an orange hat", "A blue hat"}


def test_numbers_by_hand():
    """ "two dogs" against three; where a caption tells of one more, two may be three."""
    captions = [["two dogs run", "dogs"], ["three dogs", "dogs"], ["two dogs", "a dog"]]
    assert drawn(captions, "replaced attribute", count=20) == {
        "two dogs run": {0: "two dogs run", 1: "three dogs run"},
        "three dogs": {0: "two dogs", 1: "three dogs"},
    }


def test_swapped_by_hand():
    """The second image has the first's attributes exchanged, the third has another noun."""
    captions = [
        ["a red hat and a blue kite", "a hat"],
        ["a red kite near a blue hat", "a kite"],
        ["a red tent near a blue hat", "a tent"],
    ]
    assert drawn(captions, "swapped", count=20) == {
        "a red hat and a blue kite": {
            0: "a red hat and a blue kite", 1: "a blue hat and a red kite",
        },
        "a red kite near a blue hat": {
            0: "a blue kite near a red hat", 1: "a red kite near a blue hat",
        },
    }  # fmt: skip


def test_joined_colours_are_told_apart_from_a_list():
    dog = Phrase("white dog", "dog", 12, 21)
    assert [a.word for a in attributes_of("a black and white dog", dog)] == ["black", "white"]
    cap = Phrase("blue cap", "cap", 17, 25)
    assert [a.word for a in attributes_of("a red jacket and blue cap", cap)] == ["blue"]


def changed(pair):
    """Return the mentions of `with_p` and of `with_q` that the other text lacks."""
    p, q = ([m.text for m in noun_phrases(text)] for text in (pair.with_p, pair.with_q))
    return [m for m in p if m not in q], [m for m in q if m not in p]


@pytest.mark.parametrize("kind", KINDS)
def test_on_scenes_each_lie_is_false_and_each_host_is_an_own_caption(kind, bank, rows, known):
    """An addition is wholly true of its image. The others are so in the host of that image."""
    found = bank.pairs(count=90, kinds=[kind])
    assert len(found) == 180
    for one in found:
        of_p, of_q = changed(one)
        assert of_p and of_q and one.with_p != one.with_q
        assert not any(facts(text) <= known[one.b] for text in of_p)
        assert not any(facts(text) <= known[one.a] for text in of_q)
    for of_a, of_b in zip(found[::2], found[1::2], strict=True):
        assert of_a.host in rows["captions"][of_a.a] and of_b.host in rows["captions"][of_b.b]
        assert facts(of_a.with_p) <= known[of_a.a] and facts(of_b.with_q) <= known[of_b.b]


def test_drawn_by_seed_rows_and_count(bank):
    assert bank.pairs(1, count=20) == bank.pairs(1, count=20) != bank.pairs(2, count=20)
    some = bank.pairs(1, rows=range(10, 30), kinds=["added"])
    assert 0 < len(some) <= 40 and {row for one in some for row in (one.a, one.b)} <= set(
        range(10, 30)
    )
    assert bank.pairs(1, count=5, hosts="a") == bank.pairs(1, count=5)[::2]
    assert bank.pairs(1, kinds=["swapped"]) == [p for p in bank.pairs(1) if p.kind == "swapped"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["add"]}, r"unknown \['add'\]"),
        ({"hosts": "b"}, "hosts is 'b'"),
        ({"count": -1}, "count is -1"),
        ({"rows": [3, 3]}, "1 rows"),
    ],
)
def test_wrong_options(bank, options, message):
    with pytest.raises(ValueError, match=message):
        bank.pairs(**options)
    with pytest.raises(ValueError, match="captions of 1 images"):
        BalancedBank([["a dog"]], phrases)
