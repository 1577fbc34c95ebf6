"""Batches made while a step is at work: the same ones, in order, and no more than one too many."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("accelerate", reason="extra `recipes`")
from datasets import Dataset

from ascl_plugin.training.batches import TrainingRows, made_ahead


def test_items_come_in_order_and_an_error_in_its_place():
    def items():
        yield from range(5)
        raise OSError("disk")

    assert list(made_ahead(iter(range(5)))) == list(range(5))
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
    ahead.close()  # waits for the one under way, and begins no other
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
