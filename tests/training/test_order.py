"""Which pairs are in which batch."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.training.batches import epoch_batches, rows_told

COUNTS = st.lists(st.integers(1, 6), min_size=2, max_size=12)


@settings(deadline=None)
@given(COUNTS, st.data(), st.integers(0, 99), st.integers(0, 99))
def test_an_epoch_shows_every_caption_but_for_the_rest_of_a_pass(counts, data, seed, epoch):
    """No image twice in a batch, no caption twice in an epoch, and of the images that still have a
    caption in a pass all but (their number mod batch size) are shown.
    """
    size = data.draw(st.integers(2, len(counts)))
    batches = epoch_batches(seed, epoch, counts, size)
    shown = [pair for batch in batches for pair in batch]
    for batch in batches:
        assert len(batch) == size and len({row for row, _ in batch}) == size
    assert len(set(shown)) == len(shown)
    assert all(0 <= caption < counts[row] for row, caption in shown)
    in_pass = [sum(count > number for count in counts) for number in range(max(counts))]
    assert len(shown) == sum(there - there % size for there in in_pass)
    # a row is left out of a pass at most: it is never short of more than the passes cut something
    cut = sum(1 for there in in_pass if there % size)
    for row, count in enumerate(counts):
        assert count - cut <= sum(r == row for r, _ in shown) <= count


def test_even_counts_that_fill_every_batch_leave_nothing_out():
    batches = epoch_batches(0, 0, [5] * 8, 4)
    assert len(batches) == 10
    assert {pair for b in batches for pair in b} == {(r, c) for r in range(8) for c in range(5)}
    for start in range(0, 10, 2):  # each pass holds every image once
        assert {row for b in batches[start : start + 2] for row, _ in b} == set(range(8))


@settings(deadline=None)
@given(COUNTS, st.integers(1, 8))
def test_a_limit_on_passes_shows_images_with_few_captions_again(counts, passes):
    """Each image in every pass; captions repeat only when an image has no more of them."""
    batches = epoch_batches(0, 0, counts, len(counts), captions=passes)
    assert len(batches) == passes
    for row, count in enumerate(counts):
        captions = [dict(batch)[row] for batch in batches]
        assert len(set(captions)) == min(count, passes)
        assert captions == [captions[number % count] for number in range(passes)]


def test_it_is_a_function_of_seed_and_epoch():
    drawn = {
        (seed, epoch): epoch_batches(seed, epoch, [3] * 20, 5) for seed in range(3) for epoch in
        range(3)
    }  # fmt: skip
    for (seed, epoch), batches in drawn.items():
        assert epoch_batches(seed, epoch, [3] * 20, 5) == batches
    assert len({str(batches) for batches in drawn.values()}) == 9
    numbers = [x for pair in drawn[0, 0][0] for x in pair]
    assert all(type(x) is int for x in numbers)  # they travel to workers and into JSON


def test_over_epochs_every_image_is_left_out_now_and_then():
    """Five images in batches of two: one is left out of each pass, another each time."""
    left_out = set()
    for epoch in range(40):
        shown = {row for batch in epoch_batches(0, epoch, [1] * 5, 2) for row, _ in batch}
        assert len(shown) == 4
        left_out |= set(range(5)) - shown
    assert left_out == set(range(5))


def test_batches_without_competitors_are_refused():
    with pytest.raises(ValueError, match="batch_size is 1; a pair alone"):
        epoch_batches(0, 0, [1, 1], 1)
    with pytest.raises(ValueError, match="2 images do not fill a batch of 3"):
        epoch_batches(0, 0, [1, 1], 3)


def test_other_data_are_told_apart():
    """By ids, captions and their order, not by where a caption ends."""
    rows = {"image_id": ["a", "b"], "captions": [["x", "y"], ["z"]]}
    others = [
        {**rows, "image_id": ["b", "a"]},
        {**rows, "captions": [["y", "x"], ["z"]]},
        {**rows, "captions": [["x"], ["y", "z"]]},
        {**rows, "captions": [["xy"], ["z"]]},
    ]
    assert rows_told(rows).startswith("2 images, SHA-256 ")
    assert rows_told(rows) == rows_told({k: list(v) for k, v in rows.items()})
    assert len({rows_told(x) for x in (rows, *others)}) == 5
