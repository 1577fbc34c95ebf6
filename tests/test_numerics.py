"""Values and gradients stay numbers: zeros, masks, extremes, half precision, in every component."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch

from ascl_plugin import AsymmetryLoss, CrossModalFusion, ImageFeatures, TextFeatures, rerank
from ascl_plugin import retrieval_metrics as metrics
from ascl_plugin.asymmetry.embedding import STRENGTH, generate_negatives
from ascl_plugin.fusion import LateInteraction, factored
from ascl_plugin.fusion.pooled import PooledSimilarity
from ascl_plugin.losses import TripletLoss
from ascl_plugin.registry import available
from ascl_plugin.reranking import rerank_candidates

HALF = (torch.float16, torch.bfloat16)


def finite(*tensors):
    return all(x is None or bool(x.isfinite().all()) for x in tensors)


# --- losses --------------------------------------------------------------------------------------

LOSSES = {
    "nll": lambda t: AsymmetryLoss(t),
    "ratio": lambda t: AsymmetryLoss(t, form="ratio"),
    "triplet": lambda t: TripletLoss(),
}
LARGE = {torch.float32: 1e30, torch.bfloat16: 1e30, torch.float16: 6e4}
SCORES = {
    "usual": lambda s, large: s,
    "zero": lambda s, large: [x * 0 for x in s],
    "large": lambda s, large: [x * large for x in s],
    "large, wrong way round": lambda s, large: [x.sign() * -large for x in s],
    "identical captions": lambda s, large: [x[:, :1].expand_as(x) for x in s],
    "all negatives beat the positive": lambda s, large: [s[0], s[1] + 3, s[2], s[3] + 3],
    "no negative counts": lambda s, large: [s[0], s[1] * 0 - torch.inf, s[2], s[3]],
    "subnormal": lambda s, large: [x * 1e-42 for x in s],
}


@pytest.mark.parametrize("pairs", [1, 2, 5])
@pytest.mark.parametrize("temperature", [1e-4, 0.05, 1e3])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses(kind, temperature, pairs):
    torch.manual_seed(0)
    usual = [torch.rand(pairs, m) * 2 - 1 for m in (pairs, pairs + 1) * 2]
    for case, change in SCORES.items():
        for dtype, large in LARGE.items():
            blocks = [x.to(dtype, copy=True).requires_grad_() for x in change(usual, large)]
            loss = LOSSES[kind](temperature)(*blocks)
            loss.backward()
            assert finite(loss, *(x.grad for x in blocks)), (case, dtype)


# --- scorers -------------------------------------------------------------------------------------


FREE = "parameter-free"
# a scorer of width 8, and the backend of a fusion head; "recomputed": factored, tiles worked out
# again for gradients
SCORERS = {
    **{
        f"{attention} {backend}": (partial(CrossModalFusion, 8, 2, attention=attention), backend)
        for attention in ("projected", FREE)
        for backend in ("reference", "factored", "recomputed")
    },
    "local alone": (partial(CrossModalFusion, 8, 2, 1.0), "factored"),
    **{
        f"{name} attention {backend}": (
            partial(CrossModalFusion, 8, 2, attention=FREE, smoothing=(factor, factor)), backend
        )
        for name, factor, backend in (
            ("flat", 1e-4, "factored"), ("sharp", 1e3, "factored"), ("sharp", 1e3, "reference")
        )
    },
    "regions": (PooledSimilarity, None),
    "pooled": (partial(PooledSimilarity, "pooled"), None),
    "late, words": (partial(LateInteraction, 0.7, 0.0), None),
    "late, both": (partial(LateInteraction, 0.7, 0.5), None),
}  # fmt: skip
PRECISIONS = [  # (dtype of features, of autocast)
    (torch.float32, None), *((d, None) for d in HALF), *((torch.float32, d) for d in HALF)
]  # fmt: skip


def make_scorer(name):
    """The scorer, a function that scores with its backend, and that backend."""
    torch.manual_seed(0)
    make, backend = SCORERS[name]
    scorer = make()
    options = {} if backend is None else {"backend": backend.replace("recomputed", "factored")}
    return scorer, partial(scorer, **options), backend


def features(case):
    """Regions (3, 4, 8) and their mask, pooled (3, 8), words (3, 5, 8) and their mask."""
    generator = torch.Generator().manual_seed(1)
    v, g, w = (torch.randn(*shape, generator=generator) for shape in ((3, 4, 8), (3, 8), (3, 5, 8)))
    v_mask, w_mask = torch.ones(3, 4, dtype=torch.bool), torch.ones(3, 5, dtype=torch.bool)
    w_mask[1, 3:] = False
    if case == "zero region and word":
        v[0, 1] = w[0, 1] = 0
    if case in ("zero image", "all zero"):
        v[0] = g[0] = 0
    if case in ("zero text", "all zero"):
        w[0] = 0
    if case == "all zero":
        v, g, w = v * 0, g * 0, w * 0
    if case in ("masked text", "all masked"):
        w_mask[0] = False
    if case in ("masked image", "all masked"):
        v_mask[0] = False
    if case == "all masked":
        v_mask[:] = w_mask[:] = False
    if case == "identical captions":
        w, w_mask = w[:1].repeat(3, 1, 1), w_mask[:1].repeat(3, 1)
    if case.startswith("everything identical"):
        number = 2e4 if "large" in case else 1.0
        v, g, w = (torch.full_like(x, number) for x in (v, g, w))
    if case == "batch of two":
        return v[:2], v_mask[:2], g[:2], w[:2], w_mask[:2]
    scale = {"large": 1e4, "small": 1e-7, "subnormal": 1e-42}.get(case, 1.0)
    return v * scale, v_mask, g * scale, w * scale, w_mask


CASES = (
    "usual", "zero region and word", "zero image", "zero text", "all zero", "masked text",
    "masked image", "all masked", "identical captions", "everything identical",
    "everything identical, large", "batch of two", "large", "small", "subnormal",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SCORERS)
def test_scorers(name, case, monkeypatch):
    scorer, score, backend = make_scorer(name)
    if backend == "recomputed":
        monkeypatch.setattr(factored, "default_kept", lambda device: 0)
    for dtype, autocast in PRECISIONS:
        if backend == "reference" and torch.float16 in (dtype, autocast):
            continue  # it is for reading: its products are not kept within the range of fp16
        v, v_mask, g, w, w_mask = features(case)
        v, g, w = (x.to(dtype).requires_grad_() for x in (v, g, w))
        if backend == "reference" and dtype in HALF:
            scorer.to(dtype)
        with nullcontext() if autocast is None else torch.autocast("cpu", autocast):
            sim = score(ImageFeatures(v, v_mask, g), TextFeatures(w, w_mask))
        assert finite(sim) and sim.dtype == torch.float32, (dtype, autocast)
        assert sim.detach().abs().max() <= 1.02, (dtype, autocast)  # bf16 rounds up to 1 %
        if torch.float16 in (dtype, autocast) and case in ("small", "subnormal"):
            continue  # the gradient of a cosine goes with 1 / length, which fp16 cannot hold
        scorer.zero_grad()
        sim.sum().backward()
        gradients = v.grad, g.grad, w.grad, *(p.grad for p in scorer.parameters())
        assert finite(*gradients), (dtype, autocast)
        scorer.float()


@pytest.mark.parametrize("name", SCORERS)
def test_a_zero_vector_resembles_nothing_and_gets_no_gradient(name):
    """1 / |x| has no end there: a gradient of 1e8 or more would be all that a step is made of."""
    _, score, _ = make_scorer(name)
    v, v_mask, g, w, w_mask = features("zero image")
    w[2] = 0
    v, g, w = (x.requires_grad_() for x in (v, g, w))
    sim = score(ImageFeatures(v, v_mask, g), TextFeatures(w, w_mask))
    sim.backward(torch.ones_like(sim))
    assert sim[0].abs().max() == 0 and sim[:, 2].abs().max() == 0 and sim[1:, :2].all()
    for x, index in ((v, 0), (g, 0), (w, 2)):
        if x.grad is not None:
            assert x.grad[index].abs().max() == 0 and x.grad.abs().max() < 100


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", SCORERS)
def test_what_is_no_number_is_not_hidden(name, value):
    """A loss has to see it: no rule for zeros or masks makes a score of it."""
    _, score, _ = make_scorer(name)
    v, v_mask, g, w, w_mask = features("usual")
    v[1, 0, 3] = g[1, 2] = w[2, 1, 0] = value
    sim = score(ImageFeatures(v, v_mask, g), TextFeatures(w, w_mask))
    assert not sim[1].isfinite().any() and not sim[:, 2].isfinite().any()
    assert sim[0, :2].isfinite().all()


@pytest.mark.parametrize("kind", STRENGTH)
def test_generated_negatives(kind):
    for case in CASES:
        for dtype in (torch.float32, *HALF):
            _, _, _, words, mask = features(case)
            words = words.to(dtype).requires_grad_()
            texts, seeds = TextFeatures(words, mask), torch.arange(len(words))
            noisy = generate_negatives(texts, seeds, kind).words
            assert noisy.dtype == dtype
            noisy.float().sum().backward()
            assert finite(noisy, words.grad), (case, dtype)


# --- re-ranking and metrics ----------------------------------------------------------------------

TOP = {np.float16: 6e4, np.float32: 3e38, np.float64: 1e308}
TEMPERED = ("dual_softmax", "inverted_softmax", "qb_norm")


def matrices(dtype):
    usual = np.random.default_rng(0).uniform(-1, 1, (6, 9))
    found = {
        "usual": usual,
        "constant": np.full((6, 9), 0.3),
        "zero": np.zeros((6, 9)),
        "identical images": np.repeat(usual[:1], 6, axis=0),
        "identical captions": np.repeat(usual[:, :1], 9, axis=1),
        "from end to end": np.sign(usual) * TOP[dtype],
        "large": usual * TOP[dtype],
        "subnormal": usual * float(np.finfo(dtype).smallest_subnormal) * 20,
        "two": usual[:2, :2],
        "one": usual[:1, :1],
    }
    return {case: sim.astype(dtype) for case, sim in found.items()}


def methods():
    for method in available("rerank"):
        temperatures = (1e-4, 0.05, 1e3) if method in TEMPERED else (None,)
        for temperature in temperatures:
            yield method, {} if temperature is None else {"temperature": temperature}


@pytest.mark.parametrize(("method", "options"), methods())
def test_reranking_keeps_every_score(method, options):
    """Each query has the scores that it had, in other places; the input is not touched."""
    for dtype in TOP:
        for case, sim in matrices(dtype).items():
            before = sim.copy()
            found = rerank(sim, method=method, **options)
            assert np.array_equal(sim, before), (dtype, case)
            assert np.array_equal(np.sort(found.i2t, 1), np.sort(sim, 1)), (dtype, case)
            assert np.array_equal(np.sort(found.t2i, 0), np.sort(sim, 0)), (dtype, case)


@pytest.mark.parametrize("method", ["bidirectional", "csls", "nnn", "k_reciprocal"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_order_is_that_of_the_same_scores_on_another_scale(method, dtype):
    """Powers of two up to the end of the range (of the mean of 16 scores, where one is taken)."""
    sim = np.random.default_rng(3).uniform(-1.99, 1.99, (7, 11)).astype(dtype)
    room = 1 if method in ("bidirectional", "k_reciprocal") else 32
    scale = dtype(2) ** (np.finfo(dtype).maxexp - 1) / dtype(room)
    small, large = rerank(sim, method=method), rerank(sim * scale, method=method)
    assert np.array_equal(small.i2t * scale, large.i2t)
    assert np.array_equal(small.t2i * scale, large.t2i)


@pytest.mark.parametrize("method", available("rerank"))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_score_is_refused(method, value):
    sim = np.zeros((3, 4))
    sim[1, 2] = value
    with pytest.raises(ValueError, match=r"sim holds -?(nan|inf) at row 1, column 2"):
        rerank(sim, method=method)


@pytest.mark.parametrize("case", ["constant", "from end to end", "subnormal"])
def test_reranking_lists(case):
    sim = torch.from_numpy(matrices(np.float32)[case])
    i2t, t2i = sim.sort(1, descending=True), sim.T.sort(1, descending=True)
    found = rerank_candidates(i2t.indices, i2t.values, t2i.indices, t2i.values)
    assert torch.equal(found.i2t_ids.sort(1).values, i2t.indices.sort(1).values)
    assert torch.equal(found.i2t_scores, i2t.values) and torch.equal(found.t2i_scores, t2i.values)


@pytest.mark.parametrize("dtype", TOP)
def test_metrics(dtype):
    for case, sim in matrices(dtype).items():
        owners = np.arange(sim.shape[1]) % len(sim)
        found = metrics(sim, owners)
        assert all(np.isfinite(value) for value in found.values()), case
        if case in ("constant", "zero"):
            assert found["i2t_r1"] == found["t2i_r1"] == 0  # a tie is lost
    infinite = np.where(np.eye(3, dtype=bool), np.inf, -np.inf).astype(dtype)
    assert metrics(infinite, np.arange(3))["rsum"] == 600
    least = np.eye(3, dtype=dtype) * np.finfo(dtype).smallest_subnormal
    assert metrics(least, np.arange(3))["rsum"] == 600
