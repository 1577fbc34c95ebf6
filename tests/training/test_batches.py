"""Which pairs are in which batch, and batches made while a step is at work."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("accelerate", reason="extra `recipes`")
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.training.batches import describe_rows, epoch_batches, made_ahead
from ascl_plugin.training.training_rows import TrainingRows

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
    assert len(shown) == sum(count - count % size for count in in_pass)
    # an image is left out of a pass at most: it is never short of more than the passes cut
    cut = sum(1 for count in in_pass if count % size)
    for row, count in enumerate(counts):
        assert count - cut <= sum(r == row for r, _ in shown) <= count


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


@settings(deadline=None)
@given(COUNTS, st.integers(2, 4), st.integers(0, 6))
def test_several_captions_of_an_image_in_a_batch(counts, several, limit):
    """All images in each pass. Without a limit every caption once; with one, c of each in each of
    limit / c passes, fewer only where an image has fewer, and no caption twice in a batch.
    """
    batches = epoch_batches(3, 1, counts, len(counts), limit, several)
    assert len(batches) == -(-(limit or min(counts)) // several)
    for batch in batches:
        assert sorted(row for row, _ in batch) == list(range(len(counts)))
    for row, count in enumerate(counts):
        passes = [dict(batch)[row] for batch in batches]
        shown = [caption for captions in passes for caption in captions]
        assert set(shown) <= set(range(count))
        if limit:
            assert all(len(set(c)) == len(c) == min(several, count) for c in passes)
            assert len(set(shown)) == min(count, len(shown))
        else:
            assert len(shown) == len(set(shown)) == min(count, several * len(passes))


def test_one_caption_an_image_is_as_ever():
    """Pinned: the draws of runs before there could be several."""
    pinned = [[(1, 1), (0, 0)], [(2, 0), (1, 0)], [(2, 0), (1, 2)], [(0, 1), (2, 0)]]
    assert epoch_batches(5, 3, [2, 3, 1], 2, 4) == pinned


def test_it_is_a_function_of_seed_and_epoch():
    drawn = {(s, e): epoch_batches(s, e, [3] * 20, 5) for s in range(3) for e in range(3)}
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


def test_other_data_are_described_otherwise():
    """By ids, captions and their order, not by where a caption ends."""
    rows = {"image_id": ["a", "b"], "captions": [["x", "y"], ["z"]]}
    others = [
        {**rows, "image_id": ["b", "a"]},
        {**rows, "captions": [["y", "x"], ["z"]]},
        {**rows, "captions": [["x"], ["y", "z"]]},
        {**rows, "captions": [["xy"], ["z"]]},
    ]
    assert describe_rows(rows).startswith("2 images, SHA-256 ")
    assert describe_rows(rows) == describe_rows({k: list(v) for k, v in rows.items()})
    assert len({describe_rows(x) for x in (rows, *others)}) == 5


def test_items_come_in_order_and_an_error_in_its_place():
    def items():
        yield from range(5)
        raise OSError("disk")

    assert list(made_ahead(iter([]))) == []
    ahead = made_ahead(items())
    assert [next(ahead) for _ in range(5)] == list(range(5))
    with pytest.raises(OSError, match="disk"):
        next(ahead)


def test_an_item_is_made_while_the_one_before_is_in_use():
    begun = [threading.Event() for _ in range(4)]

    def items():
        for number in range(4):
            begun[number].set()
            yield number

    ahead = made_ahead(items())
    assert next(ahead) == 0
    assert begun[1].wait(10)
    ahead.close()  # waits for the current one, and begins no other
    assert not begun[2].is_set()


def test_rows_of_a_batch_are_those_read_alone():
    table = {"image_id": list("abc"), "image": [{"path": x} for x in "abc"], "more": [1, 2, 3]}
    table["captions"] = [["one", "two"], ["three"], ["four"]]
    rows = Dataset.from_dict(table)
    found = TrainingRows(rows).__getitems__([(7, 2, 0), (7, 0, 1)])
    assert found == [
        {"epoch": 7, "row": 2, "caption_index": 0, "image_id": "c", "image": {"path": "c"},
         "captions": ["four"]},
        {"epoch": 7, "row": 0, "caption_index": 1, "image_id": "a", "image": {"path": "a"},
         "captions": ["one", "two"]},
    ]  # fmt: skip
