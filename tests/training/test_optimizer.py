"""Learning rates worked out by hand, and encoders with a rate of their own."""

from __future__ import annotations

import pytest
from torch import nn

pytest.importorskip("transformers", reason="extra `recipes`")
from ascl_plugin.training.arguments import TrainArguments
from ascl_plugin.training.optimizer import learning_rate, make_optimizer, set_rate


def model(frozen=()):
    parts = {name: nn.Linear(1, 1) for name in ("image_encoder", "text_encoder", "fusion")}
    for name in frozen:
        parts[name].requires_grad_(False)
    return nn.ModuleDict(parts)


def own_rates(optimizer):
    return {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}


def test_one_rate_for_all_by_default():
    optimizer = make_optimizer(model(), TrainArguments(learning_rate=0.1))
    set_rate(optimizer, 0.05)
    assert len(optimizer.param_groups) == 1 and len(own_rates(optimizer)) == 6
    assert set(own_rates(optimizer).values()) == {0.05}


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_encoders_take_their_share_of_every_rate(kind):
    """1e-2 of 1e-1 is a tenth: at a rate of 0.05 encoders have 0.005, after a checkpoint too."""
    parts = model(frozen=["image_encoder"])
    args = TrainArguments(learning_rate=0.1, encoder_learning_rate=0.01, optimizer=kind)
    optimizer, fresh = make_optimizer(parts, args), make_optimizer(parts, args)
    fresh.load_state_dict(optimizer.state_dict())
    for one in (optimizer, fresh):
        set_rate(one, 0.05)
        found = own_rates(one)
        assert {found[id(p)] for p in parts["fusion"].parameters()} == {0.05}
        encoder = [found[id(p)] for p in parts["text_encoder"].parameters()]
        assert encoder == [pytest.approx(0.005)] * 2 and len(found) == 4


def test_a_rate_without_anything_to_train_is_an_error():
    args = TrainArguments(encoder_learning_rate=0.01)
    with pytest.raises(ValueError, match=r"both encoders are frozen; .*--image_encoder\.tune full"):
        make_optimizer(model(frozen=["image_encoder", "text_encoder"]), args)
    args = TrainArguments(learning_rate=0.0, encoder_learning_rate=0.01)
    with pytest.raises(ValueError, match=r"must be above 0, got 0\.0"):
        make_optimizer(model(), args)


def rates(steps, total=100, per_epoch=5, **options):
    args = TrainArguments(**{"learning_rate": 1.0} | options)
    return [learning_rate(args, step, total, per_epoch) for step in steps]


def test_step_decays_every_so_many_epochs():
    """Epochs of 5 steps, x 0.9 every 2 epochs; the papers' is the default: every 10 epochs."""
    found = rates([0, 9, 10, 19, 20, 99], schedule="step", decay_every=2, decay_factor=0.9)
    assert found == pytest.approx([1, 1, 0.9, 0.9, 0.81, 0.9**9])
    assert rates([49, 50, 149, 150]) == pytest.approx([1, 0.9, 0.81, 0.729])


def test_cosine_goes_from_full_to_final():
    """Half-way the mean of both ends; at a third cos(60 degrees) = 1/2: 3/4 of the way up."""
    found = rates([0, 50, 100, 200], schedule="cosine", final_learning_rate=0.2)
    assert found == pytest.approx([1, 0.6, 0.2, 0.2])
    assert rates([30], total=90, schedule="cosine") == pytest.approx([0.75])
    # after 20 of 100 steps of warm-up, half-way of the rest is step 60
    assert rates([60, 100], schedule="cosine", warmup_steps=20) == pytest.approx([0.5, 0])


@pytest.mark.parametrize("schedule", ["step", "cosine", "constant"])
def test_warm_up_rises_in_equal_parts_to_the_full_rate(schedule):
    found = rates(range(5), schedule=schedule, warmup_steps=4)
    assert found == pytest.approx([0.25, 0.5, 0.75, 1, 1])


def test_the_aligning_phase_has_a_schedule_of_its_own():
    """Ten of 30 steps align, from 3 down; the other 20 begin at 1, without another warm-up."""
    options = {"schedule": "cosine", "align_epochs": 2, "align_learning_rate": 3.0}
    found = rates([0, 5, 10, 20, 30], total=30, **options)
    assert found == pytest.approx([3, 1.5, 1, 0.5, 0])
    assert rates([0, 10], total=30, warmup_steps=2, **options) == pytest.approx([1.5, 1])
    assert rates([0, 7, 99], schedule="constant") == [1, 1, 1]
