"""OpenClipAsymmetryLoss against ClipLoss, AsymmetryLoss, and two processes against one."""

from __future__ import annotations

import inspect
import os
import sys

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ascl_plugin import AsymmetryLoss
from ascl_plugin.adapters.losses.open_clip import OpenClipAsymmetryLoss
from ascl_plugin.losses import asymmetry_loss

WORLD = 2
PAIRS = 6
# (local_loss, gather_with_grad)
MODES = [(False, False), (False, True), (True, True), (True, False)]


def features(seed=0, pairs=PAIRS, width=8):
    """Unit vectors as a model gives them; texts near their images, so that nothing is saturated."""
    torch.manual_seed(seed)
    images = torch.randn(pairs, width, dtype=torch.float64)
    out = {"image_features": images}
    for name in ("text_features", "negative_text_features", "positive_text_features"):
        out[name] = images + torch.randn_like(images)
    out = {k: functional.normalize(v, dim=-1).requires_grad_() for k, v in out.items()}
    return out | {"logit_scale": torch.tensor(5.0, dtype=torch.float64, requires_grad=True)}


def two(out):
    return {k: out[k] for k in ("image_features", "text_features", "logit_scale")}


def one_process(rank, folder):
    """What each of the processes does: the loss, and gradients averaged as DDP does."""
    dist.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    found = {}
    for local, grad in MODES:
        loss_fn = OpenClipAsymmetryLoss(
            negatives="none",
            rank=rank,
            world_size=WORLD,
            local_loss=local,
            gather_with_grad=grad,
            balance=0.3,
        )
        whole = features()
        rows = slice(rank * PAIRS // WORLD, (rank + 1) * PAIRS // WORLD)
        mine = {k: v[rows] if v.ndim else v for k, v in whole.items()}
        loss = loss_fn(**mine)
        loss.backward()
        found[f"{local} {grad} loss"] = loss.detach()
        for name, value in whole.items():
            dist.all_reduce(value.grad)
            found[f"{local} {grad} {name}"] = value.grad / WORLD
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory, run_ranks):
    return run_ranks(__file__, tmp_path_factory.mktemp("ranks"), WORLD)


@pytest.mark.parametrize(("local", "grad"), MODES)
def test_two_processes_against_one(found, local, grad):
    """Loss and every averaged gradient are those of one process with all pairs.

    Without gradients through the gather and each process computing the whole loss, as `ClipLoss`
    has it, features get 1 / world_size of it; with own pairs alone they get a part of it.
    """
    whole = features()
    loss = OpenClipAsymmetryLoss(balance=0.3, negatives="none")(**whole)
    loss.backward()
    key = f"{local} {grad}"
    mean = sum(values[f"{key} loss"] for values in found) / WORLD
    torch.testing.assert_close(mean, loss.detach())
    for name, value in whole.items():
        averaged = found[0][f"{key} {name}"]
        assert value.grad.abs().max() > 1e-3
        if grad or name == "logit_scale":
            torch.testing.assert_close(averaged, value.grad)
        elif not local:
            torch.testing.assert_close(averaged, value.grad / WORLD)
        else:
            assert not torch.allclose(averaged, value.grad)


@settings(max_examples=20, deadline=None)
@given(pairs=st.integers(1, 9), width=st.integers(2, 12), seed=st.integers(0, 99))
def test_it_is_the_asymmetry_loss(pairs, width, seed):
    """Of score matrices, in all its blocks, at temperature 1 / logit_scale; gradients, too."""
    out = features(seed, pairs, width)
    loss = OpenClipAsymmetryLoss(balance=0.3, negatives="none")(**out)
    images = out["image_features"]
    blocks = {
        "sim": images @ out["text_features"].T,
        "negative_sim": images @ out["negative_text_features"].T,
        "positive_sim": images @ out["positive_text_features"].T,
    }
    expected = AsymmetryLoss(temperature=1 / 5, balance=0.3, reduction="clip")(**blocks)
    torch.testing.assert_close(loss, expected)
    leaves = [v for v in out.values() if v.ndim]
    for ours, theirs in zip(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("below", [2e-7, -2e-7, 0.0])
def test_rounding_decides_a_tie_in_neither(below):
    """A generated negative is its caption but for rounding: it competes here as in the function."""
    out = {k: v.detach().float() for k, v in two(features(pairs=64)).items()}
    images, texts = out["image_features"], out["text_features"]
    negatives = texts * (1 - below)
    ours = OpenClipAsymmetryLoss(temperature=0.01)(**out, negative_text_features=negatives)
    expected = asymmetry_loss(
        images @ texts.T, images @ negatives.T, temperature=0.01, reduction="clip"
    )
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)


def test_without_generated_texts_it_is_clip_loss():
    """Values of the dict summed (3.x), or keys that end in _loss alone (4.x): the same number."""
    clip_loss = pytest.importorskip("open_clip.loss", reason="extra `open-clip`").ClipLoss
    out, ours = two(features()), OpenClipAsymmetryLoss(negatives="none")
    theirs = clip_loss()(**out, output_dict=True)["contrastive_loss"]
    assert list(ours(**out, output_dict=True)) == ["asymmetry_loss"]
    for loss in (ours(**out), *ours(**out, output_dict=True).values()):
        torch.testing.assert_close(loss, theirs)
    added = OpenClipAsymmetryLoss(negatives="none", reduction="mean")(**out)
    torch.testing.assert_close(added, 2 * theirs)


def test_a_value_by_hand():
    """Two orthogonal pairs at scale s: each of four ratios is e^s / (e^s + 1); s = ln 3: 3/4.

    So the loss, the mean over directions, is -ln(3/4); and a fixed temperature is 1 / s.
    """
    eye = {"image_features": torch.eye(2), "text_features": torch.eye(2)}
    scale = torch.tensor(3.0).log()
    learned = OpenClipAsymmetryLoss(negatives="none")(**eye, logit_scale=scale)
    expected = -torch.tensor(0.75).log()
    torch.testing.assert_close(learned, expected)
    fixed = OpenClipAsymmetryLoss(temperature=1 / float(scale), negatives="none")
    torch.testing.assert_close(fixed(**eye, logit_scale=torch.tensor(99.0)), expected)


@pytest.mark.parametrize("kind", ["gaussian", "dropout"])
def test_generated_negatives_compete(kind):
    """Noise raises the loss above that without it, is drawn anew, and not in evaluation mode."""
    out = two(features())
    plain = OpenClipAsymmetryLoss(negatives="none")(**out)
    noisy = OpenClipAsymmetryLoss(negatives=kind, strength=0.3)
    torch.manual_seed(0)
    first, second = noisy(**out), noisy(**out)
    assert first > plain and second > plain and first != second
    assert noisy.eval()(**out) == plain


def test_every_parameter_of_the_model_gets_a_gradient():
    """A fixed temperature and a bias that cancels: zero, but there."""
    out = two(features())
    bias = torch.tensor(-10.0, dtype=torch.float64, requires_grad=True)
    OpenClipAsymmetryLoss(temperature=0.05)(**out, logit_bias=bias).backward()
    assert bias.grad == 0 and out["logit_scale"].grad == 0
    assert out["text_features"].grad.abs().max() > 0


def test_half_precision_in_fp32_out():
    out = {k: v.detach().to(torch.bfloat16) for k, v in two(features()).items()}
    loss = OpenClipAsymmetryLoss()(**out)
    assert loss.dtype == torch.float32 and loss.isfinite()


def test_arguments_are_those_of_clip_loss():
    clip_loss = pytest.importorskip("open_clip.loss", reason="extra `open-clip`").ClipLoss
    shared = {"rank", "world_size", "local_loss", "gather_with_grad"}
    for loss in (clip_loss, OpenClipAsymmetryLoss):
        assert shared <= set(inspect.signature(loss).parameters)
    given_by_model = set(inspect.signature(clip_loss.forward).parameters)
    assert given_by_model <= set(inspect.signature(OpenClipAsymmetryLoss.forward).parameters)


def test_options_out_of_range():
    with pytest.raises(ValueError, match="gaussian, dropout, none, got 'shuffle'"):
        OpenClipAsymmetryLoss(negatives="shuffle")
    for wrong in (0, torch.nan, torch.inf):
        with pytest.raises(ValueError, match=f"temperature must be in .*, got {wrong}"):
            OpenClipAsymmetryLoss(temperature=wrong)
    with pytest.raises(ValueError, match=r"balance must be in \[0, 1\], got 2"):
        OpenClipAsymmetryLoss(balance=2)
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'clip', got 'none'"):
        OpenClipAsymmetryLoss(reduction="none")


if __name__ == "__main__":
    one_process(int(os.environ["RANK"]), sys.argv[1])
