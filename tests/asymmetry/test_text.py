"""Generated positives: joined or truncated captions, drawn from the given generator alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.asymmetry.captions.edits import truncate
from ascl_plugin.asymmetry.text import POSITIVES, generate_positive

CAPTIONS = ["a red car", "two kites fly.", "a car and a star", "is it a boat?", "snow"]
WORDS = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=9)


def generator(seed=0):
    return np.random.default_rng(seed)


def test_truncate_by_hand():
    assert truncate("a red car on snow") == "a red car"  # five words: three
    assert truncate("  spaces   between  words here ") == "spaces between"


@settings(deadline=None)
@given(WORDS)
def test_truncate_keeps_the_first_half_of_the_words_rounded_up(words):
    kept = truncate(" ".join(words)).split()
    assert kept == words[: len(kept)]
    assert len(kept) - 1 < len(words) / 2 <= len(kept)


def test_concatenate_takes_two_different_captions_with_a_stop_between():
    """Every ordered pair of five, and only those, each with about 1/20 of 2,000 draws."""
    stopped = {c: c if c[-1] in ".!?" else f"{c} ." for c in CAPTIONS}
    expected = {f"{stopped[a]} {b}" for a, b in itertools.permutations(CAPTIONS, 2)}
    rng = generator()
    drawn = [generate_positive(CAPTIONS, 0, "concatenate", rng) for _ in range(2000)]
    assert set(drawn) == expected
    counts = [drawn.count(text) for text in expected]
    assert min(counts) > 60 and max(counts) < 145  # 100, give or take 4 standard deviations
    assert generate_positive(["a car"], 0, "concatenate", rng) == "a car"


def test_mixed_draws_both_about_equally_often():
    """Truncation is of the caption in the batch, here the third."""
    rng = generator()
    drawn = [generate_positive(CAPTIONS, 2, "mixed", rng) for _ in range(1000)]
    truncated = drawn.count("a car and")
    assert 437 < truncated < 563  # half, give or take 4 standard deviations
    assert all(" . " in t or "? " in t or "fly. " in t for t in drawn if t != "a car and")


@pytest.mark.parametrize("strategy", ["concatenate", "truncate", "mixed"])
def test_the_generator_is_the_only_source_of_chance(strategy):
    texts = [generate_positive(CAPTIONS, 1, strategy, generator(s)) for s in range(20)]
    np.random.seed(1)
    assert texts == [generate_positive(CAPTIONS, 1, strategy, generator(s)) for s in range(20)]


@pytest.mark.parametrize("strategy", ["swap", "none", "insert"])
def test_an_unknown_strategy_is_named(strategy):
    assert {"concatenate", "truncate", "mixed", "none"} <= set(POSITIVES)
    with pytest.raises(ValueError, match=f"concatenate, truncate, mixed, got '{strategy}'"):
        generate_positive(CAPTIONS, 0, strategy, generator())
