"""Temperatures that are numbers, tensors, parameters, learned."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ascl_plugin.losses import AsymmetryLoss, LearnedTemperature, asymmetry_loss
from ascl_plugin.training.arguments import Component
from ascl_plugin.training.models import make_loss


@pytest.mark.parametrize("form", ["nll", "ratio", "sigmoid"])
@pytest.mark.parametrize("mode", ["sum", "own", "pairwise"])
def test_a_tensor_is_the_number_and_gets_the_gradient(form, mode):
    """By central differences in float64, with negatives that the alpha rule drops."""
    torch.manual_seed(0)
    blocks = [torch.rand(4, 4, dtype=torch.float64) for _ in range(4)]

    def loss(temperature, bias):
        return asymmetry_loss(
            *blocks, temperature=temperature, bias=bias, form=form, negative_mode=mode, margin=0.1
        )

    given = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (0.2, -1.0)]
    assert loss(*given) == loss(0.2, -1.0)
    assert torch.autograd.gradcheck(loss, given)


def test_a_parameter_is_the_modules_and_a_call_may_bring_its_own():
    sim = torch.rand(3, 3)
    loss = AsymmetryLoss(nn.Parameter(torch.tensor(0.2)), form="sigmoid", bias=torch.tensor(-1.0))
    assert [name for name, _ in loss.named_parameters()] == ["temperature"]
    loss(sim).backward()
    assert loss.temperature.grad != 0
    torch.testing.assert_close(
        loss(sim, temperature=0.5), AsymmetryLoss(0.5, form="sigmoid", bias=-1.0)(sim)
    )


def test_a_learned_temperature_stops_at_its_floor_and_comes_back():
    """Pairs that are won want a temperature of 0, pairs that are lost a high one."""
    won = torch.eye(3)
    loss = AsymmetryLoss(0.05, learn_temperature=True, min_temperature=0.04)
    torch.testing.assert_close(loss(won), AsymmetryLoss(0.05)(won))
    optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
    with torch.no_grad():
        loss.temperature.log.fill_(-100.0)
    assert loss.temperature().item() == pytest.approx(0.04)
    loss(1 - won).backward()
    optimizer.step()
    assert loss.temperature().item() > 0.05
    other = copy.deepcopy(loss)
    other.load_state_dict(AsymmetryLoss(0.3, learn_temperature=True).state_dict())
    assert other.temperature().item() == pytest.approx(0.3)
    assert "floor=0.04" in repr(loss) and "negative_mode='sum'" in repr(loss)


def test_a_floor_above_the_start_is_refused():
    for start, floor in ((0.05, 0.06), (0.05, 0.0), (0.05, -1.0)):
        with pytest.raises(ValueError, match=f"got {floor} for a start of {start}"):
            LearnedTemperature(start, floor)
        with pytest.raises(ValueError, match="lowest temperature"):
            AsymmetryLoss(start, learn_temperature=True, min_temperature=floor)
    with pytest.raises(ValueError, match="needs a number to start from"):
        AsymmetryLoss(torch.tensor(0.1), learn_temperature=True)


def test_the_recipes_refuse_what_they_would_not_train():
    with pytest.raises(ValueError, match=r"learns 'temperature.log'"):
        make_loss(Component({"name": "ascl", "learn_temperature": True}))
