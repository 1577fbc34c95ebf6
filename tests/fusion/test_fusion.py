"""The printed equations by hand, and every backend held to them, values and gradients."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, factored

# fp64 and gradients: not the kernels, which test_triton.py holds to the same equations
BACKENDS = ["reference", "factored"]  # in fp64, which no kernel takes
KINDS = ("projected", "parameter-free")


def with_gradients(head, images, texts, backend, upstream):
    """Scores, and gradients of sum(upstream * scores) by name of parameter and input."""
    inputs = {
        "regions": images.regions.clone().requires_grad_(),
        "pooled": images.pooled.clone().requires_grad_(),
        "words": texts.words.clone().requires_grad_(),
    }
    if texts.pooled is not None:
        inputs["whole"] = texts.pooled.clone().requires_grad_()
    scores = head(
        ImageFeatures(inputs["regions"], images.mask, inputs["pooled"]),
        TextFeatures(inputs["words"], texts.mask, inputs.get("whole")),
        backend=backend,
    )
    wanted = inputs | dict(head.named_parameters())
    grads = torch.autograd.grad(
        (scores * upstream.to(scores)).sum(), list(wanted.values()), allow_unused=True
    )
    return scores.detach(), dict(zip(wanted, grads, strict=True))


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_worked_by_hand(backend):
    """D = 2, H = 1, all projections the identity; A = 0 and c = ln 3 make the gate 3/4.

    Image: regions v_1 = (1, 0), v_2 = (0, 1), pooled g = (1, 0). Text: one word w = (3, 4).

    One word takes all the attention: w*_1 = w*_2 = w. cos(v_1, w) = 3/5, cos(v_2, w) = 4/5, their
    mean 7/10. The word's logits are w . v / sqrt(2) = 3/sqrt(2), 4/sqrt(2), so it attends to
    v_2 with p = 1 / (1 + e^(-1/sqrt(2))) and to v_1 with 1 - p: v* = (1 - p, p),
    cos(w, v*) = (3 (1-p) + 4 p) / (5 |v*|) = (3 + p) / (5 |v*|).

    S_local = u1 7/10 + (1 - u1) (3 + p) / (5 |v*|).
    W_g = w; V_g = 3/4 v* + 1/4 g = (3 (1 - p) + 1, 3 p) / 4 = (4 - 3p, 3p) / 4:
    S_global = (3 (4 - 3p) + 4 (3p)) / (5 |(4 - 3p, 3p)|).
    """
    p = 1 / (1 + math.exp(-1 / math.sqrt(2)))
    local = 0.25 * 0.7 + 0.75 * (3 + p) / (5 * math.hypot(1 - p, p))
    whole = (12 + 3 * p) / (5 * math.hypot(4 - 3 * p, 3 * p))

    head = CrossModalFusion(dim=2, num_heads=1, local_weight=0.6, direction_weight=0.25).double()
    with torch.no_grad():
        for parameter in head.parameters():
            torch.nn.init.eye_(parameter) if parameter.ndim == 2 else parameter.zero_()
        head.gate.weight.zero_()
        head.gate.bias.fill_(math.log(3))
    images = ImageFeatures(
        torch.eye(2, dtype=torch.float64)[None], None, torch.tensor([[1.0, 0]]).double()
    )
    texts = TextFeatures(torch.tensor([[[3.0, 4]]]).double())
    parts = head.score_parts(images, texts, backend=backend)
    assert [part.item() for part in parts] == pytest.approx([local, whole], abs=1e-12)
    assert head(images, texts, backend=backend).item() == pytest.approx(
        0.6 * local + 0.4 * whole, abs=1e-12
    )


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_parameter_free_worked_by_hand(backend):
    """D = 2, H = 2, smoothing (1, ln 2): heads are single features, logits products of numbers.

    Image: regions v_1 = (1, 2), v_2 = (0, 0). Text: words (0, 3) and (0, 0).

    Text to regions (x 1): v_1's head 1 sees words 0, 0: equal weights on 0 and 0, giving 0. Head 2
    has logits 2 * 3 and 0, weight q = 1 / (1 + e^-6) on 3: w*_1 = (0, 3 q), and
    cos(v_1, w*_1) = 2 / sqrt(5). v_2 = 0: cosine 0. Mean: 1 / sqrt(5).
    Image to words (x ln 2): word 1's head 1 has logits 0, 0: mean of 1, 0 is 1/2. Head 2 has
    logits 6 ln 2 and 0: weights 64/65 and 1/65, giving 128/65. cos((0, 3), (1/2, 128/65)) =
    (128/65) / sqrt(1/4 + (128/65)^2). Word 2 = 0: cosine 0. Mean: half of it.
    """
    head = CrossModalFusion(
        dim=2, num_heads=2, attention="parameter-free", smoothing=(1.0, math.log(2))
    ).double()
    images = ImageFeatures(
        torch.tensor([[[1.0, 2], [0, 0]]]).double(), None, torch.ones(1, 2).double()
    )
    texts = TextFeatures(torch.tensor([[[0.0, 3], [0, 0]]]).double())
    local, _ = head.score_parts(images, texts, backend=backend)
    by_word = (128 / 65) / math.hypot(1 / 2, 128 / 65) / 2
    assert local.item() == pytest.approx(0.5 / math.sqrt(5) + 0.5 * by_word, abs=1e-12)


SHAPES = {
    "images": st.integers(1, 4),
    "regions": st.integers(1, 4),
    "texts": st.integers(1, 6),
    "words": st.integers(1, 5),
    "masks": st.booleans(),
    "attention": st.sampled_from(KINDS),
    "local_weight": st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    "direction_weight": st.sampled_from([0.0, 0.5, 0.7, 1.0]),
    "global_score": st.sampled_from(["attended", "plain", "both"]),
    "whole": st.booleans(),
    "word_pooling": st.sampled_from(["mean", "softmin", "mean_softmin"]),
}


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**31),
    st.sampled_from([(2, 1), (4, 1), (4, 2), (6, 3), (4, 4)]),
    st.fixed_dictionaries(SHAPES),
    st.integers(1, 100_000),
    st.booleans(),
)
def test_factored_equals_reference(draw, seed, width, case, memory, again):
    """Values and gradients of everything in float64, over shapes, masks and options.

    Tiles are of a pair to all of them, kept for the backward pass or computed twice. The reference
    cuts padding off and takes one pair at a time: so padding, which is drawn like anything else,
    changes no score and gets no gradient, nor does one pair change another.
    """
    head, images, texts = draw(seed, dim=width[0], heads=width[1], **case)
    upstream = torch.randn(len(images), len(texts), dtype=torch.float64)
    expected, wanted = with_gradients(head, images, texts, "reference", upstream)
    kept = 0 if again else 10**12
    with (
        mock.patch.object(factored, "default_memory", lambda device: memory),
        mock.patch.object(factored, "default_kept", lambda device: kept),
    ):
        scores, found = with_gradients(head, images, texts, "factored", upstream)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-10)
    for name, gradient in wanted.items():
        gradient = torch.zeros(()) if gradient is None else gradient
        got = torch.zeros(()) if found[name] is None else found[name]
        # relative to the size of the gradient: a cosine of short vectors has a steep one
        off = (got - gradient).abs().max() / gradient.abs().max().clamp_min(1)
        assert off <= 1e-9, f"gradient of {name} is off by {off:.1e}"


@pytest.mark.parametrize("attention", KINDS)
def test_factored_equals_reference_in_float32(draw, attention):
    head, images, texts = draw(0, 2, 9, 3, 7, dim=64, heads=4, attention=attention)
    with torch.no_grad():  # of the size that training meets, not of unit variance
        for parameter in head.parameters():
            parameter /= 8
    expected = head(images, texts, backend="reference").float()
    head = head.float()
    images = ImageFeatures(images.regions.float(), images.mask, images.pooled.float())
    texts = TextFeatures(texts.words.float(), texts.mask)
    torch.testing.assert_close(head(images, texts, "factored"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", KINDS)
def test_under_bf16_autocast_scores_stay_close_and_wide(attention):
    """bf16 keeps 8 bits: products are off by some 2^-8, cosines of D = 64 by a few hundredths."""
    torch.manual_seed(0)
    head = CrossModalFusion(64, 4, attention=attention)
    images = ImageFeatures(torch.randn(3, 9, 64), None, torch.randn(3, 64))
    texts = TextFeatures(
        torch.randn(4, 6, 64), torch.arange(6) < torch.tensor([[6], [3], [1], [5]])
    )
    exact = head(images, texts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = head(images, texts)
        half = head(
            ImageFeatures(images.regions.bfloat16(), None, images.pooled.bfloat16()),
            TextFeatures(texts.words.bfloat16(), texts.mask),
        )
    for scores in (rough, half):
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, exact, rtol=0, atol=0.03)
    rough.sum().backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("attention", KINDS)
def test_local_scores_need_no_pooled_feature(draw, backend, attention):
    head, images, texts = draw(8, attention=attention, local_weight=1.0)
    bare = ImageFeatures(images.regions, images.mask)
    expected = head(images, texts, backend)
    assert torch.equal(head(bare, texts, backend), expected)
    with pytest.raises(ValueError, match="S_global needs images with pooled"):
        head.score_parts(bare, texts, backend)
    if backend != "reference":
        prepared = head.prepare_images(bare), head.prepare_texts(texts)
        torch.testing.assert_close(head(*prepared, backend), expected)
        with pytest.raises(ValueError, match="S_global needs items prepared by"):
            head.score_parts(*prepared, backend)


def test_arrays_and_tensors_in_place_of_features_are_refused(draw):
    head, images, texts = draw(0)
    v, w = images.regions, texts.words
    for call in (head, head.score_parts):
        with pytest.raises(TypeError, match=r"images must be ImageFeatures or PreparedImages, got "
                           r"ndarray of shape \(3, 4, 4\)"):  # fmt: skip
            call(v.numpy(), texts)
        with pytest.raises(TypeError, match=r"texts must be TextFeatures .* got Tensor of shape"):
            call(images, w)
        with pytest.raises(TypeError, match=r"images must be ImageFeatures .* got TextFeatures"):
            call(texts, images)
    with pytest.raises(TypeError, match="images must be ImageFeatures, got ndarray"):
        head.prepare_images(v.numpy())
    with pytest.raises(TypeError, match="texts must be TextFeatures, got Tensor"):
        head.prepare_texts(w)


def test_errors_say_what_was_got(draw):
    for options, message in (
        ({"dim": 6, "num_heads": 4}, "dim 6 is not divisible by num_heads 4"),
        ({"local_weight": 1.5}, r"local_weight must be in \[0, 1\], got 1.5"),
        ({"direction_weight": -0.1}, "direction_weight must be"),
        ({"smoothing": (4.0, 0.0)}, "smoothing must be two numbers in"),
        ({"smoothing": (torch.nan, 9.0)}, "smoothing must be two numbers in"),
        ({"gate_bias": torch.nan}, "gate_bias must be finite, got nan"),
        ({"global_score": "none"}, "one of attended, plain, both, got 'none'"),
        ({"word_pooling": "min"}, "one of mean, softmin, mean_softmin, got 'min'"),
        ({"softmin_temperature": 0.0}, "softmin_temperature must be in"),
        ({"learn_local_weight": True, "local_weight": 1.0}, "must start in"),
        ({"attention": "free"}, "'projected' or 'parameter-free', got 'free'"),
    ):
        with pytest.raises(ValueError, match=message):
            CrossModalFusion(**{"dim": 4, "num_heads": 2} | options)
    head, images, texts = draw(0)
    wide = torch.zeros(3, 4, 6).double()
    for v, w, message in (
        (ImageFeatures(wide, None, images.pooled), texts, "dim 4 got regions of width 6"),
        (images, TextFeatures(wide), "dim 4 got words of width 6"),
        (ImageFeatures(images.regions, None, wide[:, 0]), texts, "dim 4 got pooled of width 6"),
        (ImageFeatures(images.regions), texts, "S_global needs images with pooled"),
    ):
        with pytest.raises(ValueError, match=message):
            head(v, w)
    with pytest.raises(ValueError, match=r"no backend 'cuda'; there are auto, .*reference"):
        head(images, texts, backend="cuda")


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_plain_global_scores_and_weakest_words_by_hand(backend):
    """D = 2, H = 1, parameter-free. One region (1, 0), G = (0, 2); words (3, 4) and (1, 0).

    One region takes all attention: v* = (1, 0), and words have cosines 3/5 and 1. With t = 1/5 and
    q = 1 / (1 + e^-2) the softmin is 3/5 q + (1 - q), for -x/t = -3 and -5. G_w: the mean word
    (2, 2), whose cosine with G is 1/sqrt(2); or the pooled feature (3, 4): 4/5. u2 starts at 1/4.
    """
    images = ImageFeatures(torch.tensor([[[1.0, 0]]]), None, torch.tensor([[0.0, 2]]))
    words = torch.tensor([[[3.0, 4], [1, 0]]])
    q = 1 / (1 + math.exp(-2))
    for pooling, by_word in (("mean", 0.8), ("softmin", 0.6 * q + 1 - q), ("mean_softmin", 0.8)):
        head = CrossModalFusion(
            2, 1, 0.25, direction_weight=0.0, attention="parameter-free", global_score="plain",
            word_pooling=pooling, softmin_temperature=0.2, learn_local_weight=True,
        )  # fmt: skip
        learned = {name for name, _ in head.named_parameters()}
        assert learned == {"local_logit"} | ({"pool_words.weight"} & learned)
        for pooled, whole in ((None, 1 / math.sqrt(2)), (torch.tensor([[3.0, 4]]), 0.8)):
            texts = TextFeatures(words, None, pooled)
            parts = head.score_parts(images, texts, backend)
            assert [part.item() for part in parts] == pytest.approx([by_word, whole])
            score = head(images, texts, backend).item()
            assert score == pytest.approx(by_word / 4 + 3 / 4 * whole)


@pytest.mark.parametrize("global_score", ["plain", "both"])
def test_prepared_items_carry_what_whole_scores_need(draw, global_score):
    head, images, texts = draw(3, global_score=global_score, whole=True)
    prepared = head.prepare_images(images), head.prepare_texts(texts)
    expected = head(images, texts, "reference")
    torch.testing.assert_close(head(*prepared), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(head(*prepared, "factored")[1:, :1], expected[1:, :1])
    assert (prepared[0].values is None) == (global_score == "plain")
    with pytest.raises(ValueError, match="S_global needs images with pooled"):
        head(ImageFeatures(images.regions, images.mask), texts)
