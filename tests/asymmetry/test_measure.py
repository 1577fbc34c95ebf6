"""Information asymmetry: the definitions of the paper's section 3.2 on sets small enough to see."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.asymmetry.measure import (
    asymmetry_statistics,
    asymmetry_type,
    information_asymmetry,
    outnumbering,
)

SETS = st.frozensets(st.sampled_from("abcdef"))


@settings(deadline=None)
@given(SETS, SETS, SETS)
def test_equations_3_to_5(image, added, text):
    """For a true text the asymmetry grows by X, shrinks by X and grows by X."""
    text &= image
    asymmetry = information_asymmetry(image, text)
    noise = added - image
    assert information_asymmetry(image, text | noise) == asymmetry | noise  # equation 3
    assert asymmetry_type(image, text, text | noise) == ("I" if noise else None)
    true = added & (image - text)
    assert information_asymmetry(image, text | true) == asymmetry - true  # equation 4
    assert asymmetry_type(image, text, text | true) == ("II" if true else None)
    taken = added & text
    assert information_asymmetry(image, text - taken) == asymmetry | taken  # equation 5
    assert asymmetry_type(image, text, text - taken) == ("III" if taken else None)


def test_statistics_by_hand():
    """Pairs (A, B): ({a, b, c}, {a}), ({a, b, c}, {a, x}), ({d}, {d}).

    |A| 3 3 1, |B| 1 2 1, |A - B| 2 2 0, |B - A| 0 1 0; the image holds more in two of three.
    """
    rows = [
        {"facts": ["a", "b", "c"], "caption_facts": [["a"], ["a", "x"]]},
        {"facts": ["d"], "caption_facts": [["d"]]},
    ]
    assert asymmetry_statistics(rows) == {
        "pairs": 3,
        "image_facts": pytest.approx(7 / 3),
        "text_facts": pytest.approx(4 / 3),
        "image_only": pytest.approx(4 / 3),
        "text_only": pytest.approx(1 / 3),
        "image_holds_more": pytest.approx(2 / 3),
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"facts": [], "caption_facts": []}, {"facts": []}], "row 1 has no column 'caption_facts"),
        ([], "no image-caption pairs"),
    ],
)
def test_rows_without_information_sets_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        asymmetry_statistics(rows)


def test_outnumbering_by_hand():
    """Image 1 holds 3 objects against 2, 3 and 4 words; image 2 holds 0 against 1."""
    assert outnumbering([3, 0], [[2, 3, 4], [1]]) == {
        "pairs": 4, "objects": 9 / 4, "words": 10 / 4, "more": 1 / 4, "equal": 1 / 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("objects", "words", "message"),
    [([1], [[1], [2]], "objects of 1 images, words of 2"), ([1], [[]], "no image-caption pairs")],
)
def test_outnumbering_refuses(objects, words, message):
    with pytest.raises(ValueError, match=message):
        outnumbering(objects, words)
