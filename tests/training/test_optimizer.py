"""Encoders at a rate of their own, on a model of three weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("transformers", reason="extra `recipes`")
from ascl_plugin.training.arguments import TrainArguments
from ascl_plugin.training.optimizer import make_optimizer, set_rate


def model(frozen=()):
    parts = {name: nn.Linear(1, 1) for name in ("image_encoder", "text_encoder", "fusion")}
    for name in frozen:
        parts[name].requires_grad_(False)
    return nn.ModuleDict(parts)


def rates(optimizer):
    return {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}


def test_one_rate_for_all_by_default():
    parts = model()
    optimizer = make_optimizer(parts, TrainArguments(learning_rate=0.1))
    set_rate(optimizer, 0.05)
    assert len(optimizer.param_groups) == 1
    assert set(rates(optimizer).values()) == {0.05}
    assert len(rates(optimizer)) == 6


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_encoders_take_their_share_of_every_rate(kind):
    """1e-2 of 1e-1 is a tenth: at a rate of 0.05 encoders have 0.005."""
    parts = model(frozen=["image_encoder"])
    args = TrainArguments(learning_rate=0.1, encoder_learning_rate=0.01, optimizer=kind)
    optimizer = make_optimizer(parts, args)
    set_rate(optimizer, 0.05)
    found = rates(optimizer)
    assert {found[id(p)] for p in parts["fusion"].parameters()} == {0.05}
    assert [found[id(p)] for p in parts["text_encoder"].parameters()] == [pytest.approx(0.005)] * 2
    assert len(found) == 4


def test_a_step_moves_encoders_by_their_rate():
    """Adam's first step is the learning rate itself, whatever the gradient."""
    parts = model()
    before = {name: p.detach().clone() for name, p in parts.named_parameters()}
    args = TrainArguments(learning_rate=0.1, encoder_learning_rate=0.01)
    optimizer = make_optimizer(parts, args)
    set_rate(optimizer, 0.1)
    sum(p.sum() for p in parts.parameters()).backward()
    optimizer.step()
    for name, parameter in parts.named_parameters():
        rate = 0.1 if name.startswith("fusion") else 0.01
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, rate))


def test_the_share_outlives_a_checkpoint():
    args = TrainArguments(learning_rate=0.1, encoder_learning_rate=0.01)
    first, second = make_optimizer(model(), args), make_optimizer(model(), args)
    second.load_state_dict(first.state_dict())
    set_rate(second, 1.0)
    assert sorted(set(rates(second).values())) == [pytest.approx(0.1), 1.0]


def test_a_rate_without_anything_to_train_is_an_error():
    args = TrainArguments(encoder_learning_rate=0.01)
    with pytest.raises(ValueError, match="both encoders are frozen; --freeze_encoders False"):
        make_optimizer(model(frozen=["image_encoder", "text_encoder"]), args)
    args = TrainArguments(learning_rate=0.0, encoder_learning_rate=0.01)
    with pytest.raises(ValueError, match=r"must be above 0, got 0\.0"):
        make_optimizer(model(), args)
