"""Pairs of scores, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ascl_plugin.losses import contrast_loss

LN = math.log


def test_values_by_hand():
    """t = .1; differences s- - s+ of t ln(1/3) and t ln 1: ln(1 + 1/3) and ln 2.

    Weights 3 and 1: (3 ln(4/3) + ln 2) / 4. A margin of t ln 3: ln(1 + 1) and ln(1 + 3).
    Focal 2: 1 - p = 1/4 and 1/2.
    """
    right = torch.tensor([[0.1 * LN(3)], [0.5]], dtype=torch.float64)
    wrong = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
    one, two = LN(4 / 3), LN(2)
    for options, expected in (
        ({}, (one + two) / 2),
        ({"weight": torch.tensor([[3.0], [1.0]])}, (3 * one + two) / 4),
        ({"weight": torch.tensor([[False], [True]])}, two),
        ({"weight": torch.zeros(2, 1)}, 0),
        ({"margin": 0.1 * LN(3)}, (LN(2) + LN(4)) / 2),
        ({"focal": 2.0}, (one / 16 + two / 4) / 2),
    ):
        found = contrast_loss(right, wrong, temperature=0.1, **options)
        assert found.item() == pytest.approx(expected, rel=1e-12)


def test_the_focal_factor_is_constant_for_the_gradient():
    """d/ds- is (1 - p)^2 * (1 - p) / t: with 1 - p = 1/4 that is 1/64 / t."""
    right = torch.tensor(0.1 * LN(3), dtype=torch.float64)
    wrong = torch.zeros((), dtype=torch.float64, requires_grad=True)
    contrast_loss(right, wrong, temperature=0.1, focal=2.0).backward()
    assert wrong.grad.item() == pytest.approx(1 / 6.4)


def test_nothing_to_compare_is_no_loss():
    empty = torch.zeros(0, requires_grad=True)
    loss = contrast_loss(empty, empty, temperature=0.1)
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    right, wrong = torch.rand(5).to(dtype), torch.rand(5).to(dtype)
    found = contrast_loss(right, wrong, temperature=0.01)
    torch.testing.assert_close(found, contrast_loss(right.float(), wrong.float(), temperature=0.01))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wrong": torch.zeros(3)}, r"wrong must have right's shape \(2,\), got \(3,\)"),
        ({"weight": torch.zeros(2, 1)}, r"weight must have right's shape \(2,\), got \(2, 1\)"),
        ({"weight": torch.tensor([1.0, -1])}, "weight must be in"),
        ({"temperature": 0.0}, "temperature must be in"),
        ({"margin": -1.0}, "margin must be in"),
        ({"focal": -1.0}, "focal must be in"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    given = {"wrong": torch.zeros(2), "temperature": 0.1, **options}
    with pytest.raises(ValueError, match=message):
        contrast_loss(torch.zeros(2), given.pop("wrong"), **given)
