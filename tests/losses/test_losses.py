"""The losses against numbers worked by hand: scores are t ln(n), so that every e^(s/t) is n."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from ascl_plugin.losses import AsymmetryLoss, TripletLoss, asymmetry_loss, triplet_loss

T = 0.05
ln = math.log


def scores(rows, dtype=torch.float64):
    """t ln of every number."""
    return T * torch.tensor(rows, dtype=dtype).log()


SIM = scores([[6.0, 2], [3, 4]])
POSITIVE = scores([[2.0, 1], [1, 8]])
NEGATIVE = scores([[5.0, 7, 1], [1, 2, 3]])


@pytest.mark.parametrize(
    ("form", "terms"),
    [
        ("nll", [ln(3 / 2), ln(3 / 2), ln(4 / 3), ln(7 / 4)]),
        ("ratio", [-2 / 3, -2 / 3, -3 / 4, -4 / 7]),
    ],
)
def test_plain_batch_of_two(form, terms):
    """e^(S/t) = [[6, 2], [3, 4]], rows are images.

    Image competitors are columns: 6 / (6+3) = 2/3 and 4 / (2+4) = 2/3.
    Text competitors are rows: 6 / (6+2) = 3/4 and 4 / (3+4) = 4/7.
    The loss is the mean over the two pairs of both terms: half the sum of the four.
    """
    expected = sum(terms) / 2
    assert asymmetry_loss(SIM, temperature=T, form=form).item() == pytest.approx(expected)


@pytest.mark.parametrize("form", ["nll", "ratio"])
def test_generated_negatives_and_the_alpha_rule(form):
    """As above, with e^(S-/t) = [[5, 7, 1], [1, 2, 3]] (M = 3).

    Pair 1 has 6: the 7 beats it and leaves, 6 / (6+2 + 5+1) = 3/7; it does not become e^0 = 1.
    Pair 2 has 4: nothing beats it, 4 / (3+4 + 1+2+3) = 4/13. The image side is as it was.
    """
    ratios = [2 / 3, 2 / 3, 3 / 7, 4 / 13]
    terms = [-ln(r) for r in ratios] if form == "nll" else [-r for r in ratios]
    found = asymmetry_loss(SIM, NEGATIVE, temperature=T, form=form)
    assert found.item() == pytest.approx(sum(terms) / 2)


def test_a_negative_that_beats_the_positive_gets_and_gives_no_gradient():
    """d/dS- of the text term of a kept negative is p/t over N = 2; of one that left, 0."""
    sim, negative = SIM.clone().requires_grad_(), NEGATIVE.clone().requires_grad_()
    asymmetry_loss(sim, negative, temperature=T).backward()
    expected = torch.tensor([[5 / 14, 0, 1 / 14], [1 / 13, 2 / 13, 3 / 13]]) / T / 2
    torch.testing.assert_close(negative.grad, expected.double())
    with_it = sim.grad.clone()
    sim.grad = None
    without = torch.tensor([[True, False, True], [True, True, True]])
    gone = torch.where(without, NEGATIVE, torch.full_like(NEGATIVE, -torch.inf))
    asymmetry_loss(sim, gone, temperature=T).backward()
    torch.testing.assert_close(sim.grad, with_it)


def test_balance_weighs_captions_against_generated_positives():
    """L_I = (2 ln(3/2) + ln(4/3) + ln(7/4)) / 2 from the plain batch. e^(S+/t) = [[2, 1], [1, 8]]
    has ratios 2/3 and 8/9 on both sides: L_II&III = ln(3/2) + ln(9/8).
    """
    first = (2 * ln(3 / 2) + ln(4 / 3) + ln(7 / 4)) / 2
    second = ln(3 / 2) + ln(9 / 8)
    for balance in (0.0, 0.4, 1.0):
        found = asymmetry_loss(SIM, positive_sim=POSITIVE, temperature=T, balance=balance)
        assert found.item() == pytest.approx(balance * first + (1 - balance) * second)


def test_negatives_of_positives_compete_with_the_positives_alone():
    """e^(S+/t) = [[2, 1], [1, 8]] with T~- of [[1], [9]]: 9 beats 8 and leaves.

    Text side 2 / (2+1+1) = 1/2 and 8/9; image side 2/3 and 8/9.
    """
    found = asymmetry_loss(SIM, None, POSITIVE, scores([[1.0], [9.0]]), temperature=T, balance=0.0)
    assert found.item() == pytest.approx((ln(2) + ln(3 / 2) + 2 * ln(9 / 8)) / 2)


@pytest.mark.parametrize("balance", [0.0, 0.3, 1.0])
def test_without_positives_it_is_l_i_alone_whatever_balance_says(balance):
    alone = asymmetry_loss(SIM, NEGATIVE, temperature=T, balance=1.0)
    assert asymmetry_loss(SIM, NEGATIVE, temperature=T, balance=balance) == alone
    hinges = triplet_loss(SIM, NEGATIVE, balance=1.0)
    assert triplet_loss(SIM, NEGATIVE, balance=balance) == hinges


def test_with_sim_alone_it_is_infonce_in_both_directions():
    sim = torch.randn(6, 6, dtype=torch.float64)
    own = torch.arange(6)
    cross = torch.nn.functional.cross_entropy
    expected = cross(sim / T, own) + cross(sim.T / T, own)
    torch.testing.assert_close(asymmetry_loss(sim, temperature=T), expected)


def test_a_batch_of_one_pair():
    """Nothing competes: 0. With e^(S-/t) = 1 against 3: 3/4 on the text side, 1 on the other."""
    sim = scores([[3.0]])
    assert asymmetry_loss(sim, temperature=T).item() == 0
    found = asymmetry_loss(sim, scores([[1.0]]), temperature=T)
    assert found.item() == pytest.approx(ln(4 / 3))
    assert triplet_loss(sim).item() == 0
    sim.requires_grad_()
    triplet_loss(sim, sim.detach() - 0.1).backward()
    assert sim.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", [AsymmetryLoss(0.01), TripletLoss()])
def test_half_precision_is_widened_before_any_arithmetic(dtype, loss):
    """At t = .01 logits reach 100, where fp16 has steps of 1/16 and bf16 of 1/2."""
    torch.manual_seed(0)
    half = [(torch.rand(4, 4) * 2 - 1).to(dtype) for _ in range(4)]
    found = loss(*half)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(*(x.float() for x in half)), rtol=1e-6, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(*half), found)


@pytest.mark.parametrize("form", ["nll", "ratio"])
def test_gradcheck(form):
    torch.manual_seed(0)
    blocks = [torch.randn(3, m, dtype=torch.float64, requires_grad=True) for m in (3, 2, 3, 4)]
    assert torch.autograd.gradcheck(
        lambda *b: asymmetry_loss(*b, temperature=0.5, balance=0.3, form=form), blocks
    )


def test_modules_hold_options_and_call_the_functions():
    blocks = (SIM, NEGATIVE, POSITIVE, NEGATIVE)
    found = AsymmetryLoss(0.2, 0.3, "ratio")(*blocks)
    assert found == asymmetry_loss(*blocks, temperature=0.2, balance=0.3, form="ratio")
    assert "balance=0.3" in repr(AsymmetryLoss(balance=0.3))
    assert TripletLoss(0.1, 0.3)(*blocks) == triplet_loss(*blocks, margin=0.1, balance=0.3)
    assert "margin=0.1" in repr(TripletLoss(0.1))


def test_triplet_by_hand():
    """Rows are images: S = [[.9, .8, .1], [.3, .5, .6], [.2, .4, .7]], margin .2.

    Hardest wrong images (columns): .3, .8, .6: hinges [.2+.3-.9]+ = 0, [.2+.8-.5] = .5,
    [.2+.6-.7] = .1. Hardest wrong texts (rows): .8, .6, .4: .1, .3, [-.1]+ = 0. Mean: 1/3.

    Negatives [.95, .85], [.55, .2], [.68, .1]: .95 > .9 and .55 > .5 leave. Left on the text side:
    max(.8, .85), max(.6, .2), max(.4, .68): .15, .3, .18. Mean of all: (.6 + .63) / 3 = .41.
    """
    sim = torch.tensor([[0.9, 0.8, 0.1], [0.3, 0.5, 0.6], [0.2, 0.4, 0.7]])
    negative = torch.tensor([[0.95, 0.85], [0.55, 0.2], [0.68, 0.1]])
    assert triplet_loss(sim).item() == pytest.approx(1 / 3)
    assert triplet_loss(sim, negative).item() == pytest.approx(0.41)
    both = triplet_loss(sim, None, sim, negative, balance=0.25).item()
    assert both == pytest.approx(0.25 / 3 + 0.75 * 0.41)


@pytest.mark.parametrize("loss", [asymmetry_loss, triplet_loss])
def test_shapes_that_do_not_fit_are_refused(loss):
    sim, wrong = torch.zeros(3, 3), torch.zeros(2, 3)
    for blocks, message in (
        ((wrong,), r"sim must be \(N, N\).* got \(2, 3\)"),
        ((torch.zeros(0, 0),), r"sim must be \(N, N\)"),
        ((torch.zeros(3),), r"got \(3,\)"),
        ((sim, wrong), r"negative_sim must be \(3, M\) with M >= 1, got \(2, 3\)"),
        ((sim, torch.zeros(3, 0)), r"negative_sim .* got \(3, 0\)"),
        ((sim, None, wrong), r"positive_sim must have sim's shape \(3, 3\), got \(2, 3\)"),
        ((sim, None, sim, wrong), r"positive_negative_sim must be \(3, M\)"),
        ((sim, None, None, sim), "positive_negative_sim was given without positive_sim"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(*blocks)


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("function", [asymmetry_loss, AsymmetryLoss, triplet_loss, TripletLoss])
def test_options_out_of_range_are_refused(function):
    """By the functions when called, by the modules when made."""
    own = {
        "temperature": (r"in \(0, inf\)", [0, -1, NAN, INF]),
        "form": ("'nll', 'ratio' or 'sigmoid'", ["log", "NLL", None]),
        "balance": (r"in \[0, 1\]", [7, -0.1, NAN]),
        "margin": (r"in \[0, inf\)", [-0.1, NAN, INF]),
    }
    triplet = function in (triplet_loss, TripletLoss)
    blocks = (SIM,) if function in (triplet_loss, asymmetry_loss) else ()
    for name in ("margin", "balance") if triplet else ("temperature", "form", "balance"):
        allowed, values = own[name]
        for value in values:
            with pytest.raises(ValueError, match=f"{name} must be {allowed}, got {value!r}"):
                function(*blocks, **{name: value})


def test_rounding_does_not_decide_a_tie():
    sim = torch.eye(3)
    tie = torch.full((3, 1), 1.0)
    values = [asymmetry_loss(sim, tie + off).item() for off in (-3e-7, 0, 3e-7)]
    assert values[0] == pytest.approx(values[2], abs=1e-4)
    assert values[1] > asymmetry_loss(sim, tie + 1e-3).item() + 0.1  # beaten: it leaves the sum


def test_scores_that_are_scaled_already_are_warned_of_once():
    logits = 100 * torch.eye(3)
    loss = AsymmetryLoss()
    with pytest.warns(UserWarning, match=r"scores reach 100, .* set temperature=1.0"):
        loss(logits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(logits)
        AsymmetryLoss(temperature=1.0)(logits)
        AsymmetryLoss()(logits, temperature=torch.tensor(1.0))
        AsymmetryLoss()(torch.eye(3))
