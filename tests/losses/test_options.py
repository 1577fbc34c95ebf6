"""Options and targets of the asymmetry loss against its equations, written out sum by sum."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from ascl_plugin.losses import AsymmetryLoss, asymmetry_loss

T, M, G, FOCAL, BIAS = 0.3, 0.1, 0.7, 1.5, -0.4


def matrix_of(targets, images):
    """(I, T) weights of a (T,) index."""
    return (torch.arange(images)[:, None] == targets).double()


def equation(sim, negatives, targets, ignore, form, mode, violations):
    """The docstring of `asymmetry_loss`, with `negatives[i][t]` those of pair (i, t)."""
    log, exp = torch.log, torch.exp
    weight = targets.masked_fill(ignore, 0)
    pairs = [(i, t) for i in range(len(sim)) for t in range(sim.shape[1]) if weight[i, t]]
    image = text = contrast = sigmoid = total = 0.0
    for i, t in pairs:
        kept = [s for s in negatives[i][t] if violations == "keep" or s <= sim[i, t]]
        joining = kept if mode != "pairwise" else []
        by_text = sum(exp(s / T) for s in sim[i][~ignore[i]])
        by_text = by_text + G * sum(exp((s + M) / T) for s in joining)
        by_image = sum(exp(s / T) for s in sim[:, t][~ignore[:, t]])
        w, v = weight[i, t] / weight[i].sum(), weight[i, t] / weight[:, t].sum()
        ratios = [exp(sim[i, t] / T) / by_text, exp(sim[i, t] / T) / by_image]
        terms = [-log(r) if form == "nll" else -r for r in ratios]
        image, text = image + w * terms[0], text + v * terms[1]

        share = w if mode == "sum" else 1
        others = [s for j, s in enumerate(sim[i]) if not weight[i, j] and not ignore[i, j]]
        sigmoid = sigmoid - weight[i, t] * logsigmoid(sim[i, t] / T + BIAS)
        sigmoid = sigmoid - w * sum(logsigmoid(-s / T - BIAS) for s in others)
        sigmoid = sigmoid - share * G * sum(logsigmoid(-(s + M) / T - BIAS) for s in joining)
        for s in kept:
            hard = (1 - torch.sigmoid((sim[i, t] - s) / T)).detach() ** FOCAL
            term = hard * log(1 + exp((s - sim[i, t] + M) / T))
            contrast, total = contrast + weight[i, t] * term, total + weight[i, t]
    images = len({i for i, _ in pairs})
    texts = len({t for _, t in pairs})
    loss = sigmoid / len(pairs) if form == "sigmoid" else image / images + text / texts
    return loss + G * contrast / total if mode == "pairwise" and total else loss


def drawn(seed, images, texts, kind):
    """Scores, targets as the loss takes them and as a matrix, ignored pairs."""
    draw = torch.Generator().manual_seed(seed)
    sim = torch.rand(images, texts, generator=draw, dtype=torch.float64)
    ignore = torch.rand(images, texts, generator=draw) < 0.2
    if kind == "indices":
        index = torch.randint(-1, images, (texts,), generator=draw)
        index[0], ignore[0, 0] = 0, False
        return sim, index, matrix_of(index, images), ignore, draw
    matrix = torch.rand(images, texts, generator=draw, dtype=torch.float64)
    matrix = matrix * (torch.rand(images, texts, generator=draw) < 0.5)
    matrix[0, 0], ignore[0, 0] = 1, False
    if kind == "bool":
        return sim, matrix > 0, (matrix > 0).double(), ignore, draw
    return sim, matrix, matrix, ignore, draw


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from(["indices", "bool", "weights"]),
    st.sampled_from(["nll", "ratio", "sigmoid"]),
    st.sampled_from(["sum", "own", "own matrix", "pairwise", "pairwise matrix"]),
    st.sampled_from(["drop", "keep"]),
)
def test_values_and_gradients_are_those_of_the_equation(
    seed, images, texts, kind, form, mode, violations
):
    sim, targets, matrix, ignore, draw = drawn(seed, images, texts, kind)
    mode, _, whole = mode.partition(" ")
    count = 3
    shape = (images, texts) if whole else (images if mode == "sum" else texts, count)
    block = torch.rand(shape, generator=draw, dtype=torch.float64)
    if shape == sim.shape:  # read as a matrix
        whole = "matrix"
    leaves = sim.requires_grad_(), block.requires_grad_()
    if mode == "sum":
        negatives = [[block[i]] * texts for i in range(images)]
    elif whole:
        negatives = [[block[i, t : t + 1] for t in range(texts)] for i in range(images)]
    else:
        negatives = [[block[t] for t in range(texts)]] * images
    expected = equation(sim, negatives, matrix, ignore, form, mode, violations)
    loss = AsymmetryLoss(
        T, form=form, bias=BIAS, negative_mode=mode, violations=violations, margin=M,
        focal=FOCAL if mode == "pairwise" else 0, negative_weight=G,
    )  # fmt: skip
    found = loss(sim, block, targets=targets, ignore=ignore)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, leaves, allow_unused=True),
        torch.autograd.grad(expected, leaves, allow_unused=True),
        strict=True,
    ):
        theirs = torch.zeros_like(ours) if theirs is None else theirs
        torch.testing.assert_close(ours, theirs)


def test_two_captions_an_image_by_hand():
    """e^(S/t) = [[4, 2, 2], [1, 1, 6]]; texts 0, 1 are image 0's, text 2 image 1's.

    Image side: image 0 (ln(8/4) + ln(8/2)) / 2 = 1.5 ln 2, image 1 ln(8/6); their mean.
    Text side: columns 4/5, 2/3, 6/8; the mean of three.
    """
    sim = T * torch.tensor([[4.0, 2, 2], [1, 1, 6]]).log()
    ln = math.log
    expected = (1.5 * ln(2) + ln(4 / 3)) / 2 + (ln(5 / 4) + ln(3 / 2) + ln(4 / 3)) / 3
    index = torch.tensor([0, 0, 1])
    for targets in (
        index,
        matrix_of(index, 2),
        matrix_of(index, 2).bool(),
        7 * matrix_of(index, 2),
    ):
        assert asymmetry_loss(sim, targets=targets, temperature=T).item() == pytest.approx(expected)


def test_what_is_ignored_is_not_there():
    """As if the column were left out of that row, and the row of that column."""
    sim = torch.randn(3, 3, dtype=torch.float64)
    ignore = torch.zeros(3, 3, dtype=torch.bool)
    ignore[0, 1] = True
    gone = sim.masked_fill(ignore, -torch.inf)
    torch.testing.assert_close(asymmetry_loss(sim, ignore=ignore), asymmetry_loss(gone))
    # nor is a right pair; its image and text leave the means
    ignore = torch.zeros(3, 3, dtype=torch.bool)
    ignore[2], ignore[:, 2] = True, True
    torch.testing.assert_close(
        asymmetry_loss(sim, positive_sim=sim + 1, ignore=ignore), asymmetry_loss(sim[:2, :2])
    )


@pytest.mark.parametrize("form", ["nll", "ratio", "sigmoid"])
@pytest.mark.parametrize("mode", ["sum", "own", "pairwise"])
def test_targets_on_the_diagonal_change_nothing_and_both_halves_have_every_option(form, mode):
    """Balance b: b * loss(sim, negatives) + (1 - b) * loss(positives, their negatives)."""
    blocks = [torch.rand(4, 4, dtype=torch.float64) for _ in range(4)]
    loss = AsymmetryLoss(
        0.2, 0.3, form, negative_mode=mode, margin=0.1, negative_weight=2.0, violations="keep"
    )
    found = loss(*blocks)
    torch.testing.assert_close(found, 0.3 * loss(*blocks[:2]) + 0.7 * loss(*blocks[2:]))
    eye = torch.eye(4)
    # weights are relative to others of an image or a text, but for the sigmoid: a factor
    for targets in (eye, eye.bool(), eye if form == "sigmoid" else 3 * eye, torch.arange(4)):
        torch.testing.assert_close(loss(*blocks, targets=targets), found)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = [block[order] for block in blocks]
    torch.testing.assert_close(loss(*shuffled, targets=order.argsort()), found)


@pytest.mark.parametrize("mode", ["sum", "own", "pairwise"])
@pytest.mark.parametrize("form", ["nll", "sigmoid"])
def test_a_missing_negative_counts_for_nothing(mode, form):
    """-inf beside a negative is no negative at all, also for a learned temperature."""
    sim, negative = torch.rand(6, 6), torch.rand(6, 1)
    missing = torch.cat([negative, torch.full((6, 1), -torch.inf)], dim=1)
    learned = [torch.tensor(0.2, requires_grad=True) for _ in range(2)]
    losses = [
        asymmetry_loss(sim, n, temperature=t, form=form, negative_mode=mode)
        for n, t in zip((negative, missing), learned, strict=True)
    ]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*torch.autograd.grad(sum(losses), learned))
    nothing = torch.full((6, 1), -torch.inf, requires_grad=True)
    empty = asymmetry_loss(sim, nothing, temperature=learned[0], form=form, negative_mode=mode)
    torch.testing.assert_close(empty, asymmetry_loss(sim, temperature=0.2, form=form))
    scaled = 2.0**16 * empty  # as a gradient scaler does
    assert not any(g.isnan().any() for g in torch.autograd.grad(scaled, [nothing, learned[0]]))


@pytest.mark.parametrize("form", ["nll", "sigmoid"])
def test_reductions(form):
    """ "none" has a term for each right pair, whose mean is the loss and whose sum is "sum"."""
    sim, targets = torch.rand(2, 5), torch.tensor([0, 0, 1, 0, -1])
    negative = torch.rand(5)
    loss = {
        name: AsymmetryLoss(reduction=name, form=form, negative_mode="pairwise")(
            sim, negative, targets=targets
        )
        for name in ("none", "mean", "sum")
    }
    assert loss["none"].shape == (4,)
    torch.testing.assert_close(loss["none"].mean(), loss["mean"])
    torch.testing.assert_close(loss["none"].sum(), loss["sum"])
    if form == "nll":
        halved = AsymmetryLoss(reduction="clip", negative_mode="pairwise")
        torch.testing.assert_close(halved(sim, negative, targets=targets), loss["mean"] / 2)
    plain = asymmetry_loss(torch.rand(3, 3), reduction="none")
    assert plain.shape == (3,)


def test_siglip():
    """-1/N sum_ij log sigmoid(z_ij (S_ij / t + b)), z = 1 on the diagonal, else -1."""
    sim = torch.randn(5, 5)
    signs = 2 * torch.eye(5) - 1
    expected = -logsigmoid(signs * (sim / 0.1 - 10)).sum() / 5
    torch.testing.assert_close(AsymmetryLoss(0.1, form="sigmoid")(sim), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", ["nll", "sigmoid"])
@pytest.mark.parametrize("mode", ["sum", "own", "pairwise"])
def test_half_precision_is_widened_with_every_option(dtype, form, mode):
    sim, other = torch.rand(2, 6).to(dtype), torch.rand(2, 6).to(dtype)
    loss = AsymmetryLoss(0.01, form=form, negative_mode=mode, margin=0.1)
    targets = torch.tensor([0, 1, 0, 1, 1, 1])
    found = loss(sim, other, targets=targets)
    assert found.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(sim, other, targets=targets), found)
    torch.testing.assert_close(loss(sim.float(), other.float(), targets=targets), found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"targets": torch.tensor([0, 1])},
            r"targets must be whole numbers \(T,\) = \(3,\).*\(2,\)",
        ),
        ({"targets": torch.tensor([0.0, 1, 1])}, r"whole numbers.* got torch.float32"),
        ({"targets": torch.tensor([0, 1, 2])}, "rows of sim, 0 to 1, or -1, got 0 to 2"),
        ({"targets": torch.tensor([0, 1, -2])}, "got -2 to 1"),
        ({"targets": torch.tensor([-1, -1, -1])}, "no right pair"),
        ({"targets": torch.zeros(2, 3)}, "no right pair"),
        ({"targets": torch.ones(3, 3)}, r"sim's shape \(2, 3\), got \(3, 3\)"),
        ({"targets": -torch.ones(2, 3)}, "weights in"),
        ({"targets": torch.full((2, 3), math.nan)}, "weights in"),
        (
            {"ignore": torch.zeros(2, 3)},
            r"ignore must be bool of sim's shape \(2, 3\), got torch.f",
        ),
        ({"ignore": torch.zeros(3, 2, dtype=torch.bool)}, r"got torch.bool of \(3, 2\)"),
        ({"targets": None}, r"sim must be \(N, N\).* got \(2, 3\); other shapes need targets"),
        ({"negative_sim": torch.zeros(3, 2)}, r"negative_sim must be \(2, M\)"),
        (
            {"negative_sim": torch.zeros(2), "negative_mode": "own"},
            r"negative_sim must be \(3,\) or \(3, M\), .* or of sim's shape \(2, 3\).*got \(2,\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_call(arguments, message):
    arguments = {"targets": torch.tensor([0, 1, 1]), **arguments}
    with pytest.raises(ValueError, match=message):
        asymmetry_loss(torch.zeros(2, 3), **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negative_mode": "mine"}, "negative_mode must be 'sum', 'own' or 'pairwise', got 'mine'"),
        ({"violations": "ignore"}, "violations must be 'drop' or 'keep', got 'ignore'"),
        ({"reduction": None}, "reduction must be 'mean', 'sum', 'none' or 'clip', got None"),
        ({"reduction": "clip", "form": "sigmoid"}, "'clip' halves two directions"),
        ({"margin": -1}, "margin must be in"),
        ({"negative_weight": math.inf}, "negative_weight must be in"),
        ({"focal": -1, "negative_mode": "pairwise"}, "focal must be in"),
        ({"focal": 2}, "needs negative_mode='pairwise'"),
        ({"bias": math.nan}, "bias must be finite"),
        ({"temperature": torch.ones(2)}, r"temperature must be one number, got a tensor of \(2,\)"),
        ({"temperature": torch.tensor(0.0)}, "temperature must be in"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AsymmetryLoss(**options)
    with pytest.raises(ValueError, match=message):
        asymmetry_loss(torch.eye(2), **options)
