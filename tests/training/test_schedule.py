"""The learning rate at steps worked out by hand."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="extra `recipes`")
from ascl_plugin.training.arguments import TrainArguments
from ascl_plugin.training.optimizer import learning_rate


def rates(steps, total=100, per_epoch=5, **options):
    args = TrainArguments(**{"learning_rate": 1.0} | options)
    return [learning_rate(args, step, total, per_epoch) for step in steps]


def test_step_decays_every_so_many_epochs():
    """Epochs of 5 steps, x 0.9 every 2 epochs: at steps 10, 20, ..."""
    found = rates([0, 9, 10, 19, 20, 99], schedule="step", decay_every=2, decay_factor=0.9)
    assert found == pytest.approx([1, 1, 0.9, 0.9, 0.81, 0.9**9])


def test_the_papers_step_schedule_is_the_default():
    """x 0.9 every 10 epochs."""
    assert rates([49, 50, 149, 150]) == pytest.approx([1, 0.9, 0.81, 0.729])


def test_cosine_goes_from_full_to_final():
    """Half-way the mean of both ends; at a third cos(60 degrees) = 1/2: 3/4 of the way up."""
    found = rates([0, 50, 100, 200], schedule="cosine", final_learning_rate=0.2)
    assert found == pytest.approx([1, 0.6, 0.2, 0.2])
    assert rates([30], total=90, schedule="cosine") == pytest.approx([0.75])


@pytest.mark.parametrize("schedule", ["step", "cosine", "constant"])
def test_warm_up_rises_in_equal_parts_to_the_full_rate(schedule):
    assert rates(range(4), schedule=schedule, warmup_steps=4) == pytest.approx([0.25, 0.5, 0.75, 1])
    assert rates([4], schedule=schedule, warmup_steps=4) == pytest.approx([1])


def test_cosine_after_warm_up_ends_at_the_last_step():
    """Warm-up of 20 of 100 steps: half-way of the rest is step 60."""
    found = rates([60, 100], schedule="cosine", warmup_steps=20)
    assert found == pytest.approx([0.5, 0])


def test_constant_stays():
    assert rates([0, 7, 99], schedule="constant") == [1, 1, 1]
