"""DeepSpeed's ZeRO on two processes: DDP's weights and checkpoints, and what a bad batch does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate", reason="extra `recipes`")
from safetensors.torch import load_file

from ascl_plugin.training.arguments import parse_options
from ascl_plugin.training.checkpoint import checkpoints, load_checkpoint
from ascl_plugin.training.zero_options import zero_plugin

STAGES = (1, 2, 3)


def deepspeed():
    return pytest.importorskip("deepspeed", reason="extra `deepspeed`")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(out, run_ranks):
    deepspeed()
    return run_ranks(Path(__file__).with_name("zero_ranks.py"), out, timeout=250)


def assert_same(got, expected):
    """Weights, moments and counts of steps to 1e-6, scores to 1e-5."""
    for one, other in zip(states(got), states(expected), strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            torch.testing.assert_close(
                one[name], value, rtol=0, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
            )
    torch.testing.assert_close(got["sims"], expected["sims"], rtol=0, atol=1e-5)
    assert got["best"] == expected["best"] and got["skipped"] == expected["skipped"]
    assert got["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]


def states(found):
    moments = found["optimizer"]["state"]
    return found["weights"], *(moments[number] for number in sorted(moments))


def largest(ranks, way, expected="0"):
    """Difference of a weight or moment."""
    pairs = [
        (one[name], other[name])
        for found in ranks
        for one, other in zip(states(found[way]), states(found[expected]), strict=True)
        for name in other
    ]
    return max((one - other).abs().max().item() for one, other in pairs)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("way", ["{}", "{} after 0", "0 after {}"])
def test_weights_moments_and_scores_are_those_of_ddp(ranks, way, stage):
    """Three steps of two batches, clipped, the fusion idle in the first.

    In two of the ways the last step is the other engine's."""
    for found in ranks:
        expected = found["0"]
        assert not any(name.startswith("text_encoder.") for name in expected["weights"])
        steps = {float(s["step"]) for s in expected["optimizer"]["state"].values()}
        assert steps == {2, 3}  # the fusion's, and all others'
        assert_same(found[way.format(stage)], expected)
    print(f"differs by {largest(ranks, way.format(stage)):.1e}")  # shown by -rP


def test_a_part_that_falls_idle_is_left_alone(ranks):
    """The projection of regions, which only the first step uses."""
    for found in ranks:
        steps = {float(s["step"]) for s in found["0, pooled"]["optimizer"]["state"].values()}
        assert steps == {1, 2, 3}
        assert_same(found["3, pooled"], found["0, pooled"])


def test_bf16_is_autocast_as_elsewhere(ranks):
    for found in ranks:
        assert_same(found["3, bf16"], found["0, bf16"])
    print(f"differs by {largest(ranks, '3, bf16', '0, bf16'):.1e}")
    for found in ranks:
        for name, value in found["0"]["weights"].items():
            assert found["3, bf16"]["weights"][name].dtype == value.dtype
        assert found["3, bf16"]["sims"].sub(found["0"]["sims"]).abs().max() > 1e-4


@pytest.mark.parametrize("stage", STAGES)
def test_a_process_held_a_share_and_the_frozen_encoder(ranks, stage):
    for found in ranks:
        held = found[str(stage)]["held"]
        assert held["moments"] * 2 == held["trained"]
        assert held["weights"] * (2 if stage == 3 else 1) == held["trained"]
        assert held["frozen"] > 0


@pytest.mark.parametrize("stage", STAGES)
def test_what_it_left_is_as_any_run_leaves_it(ranks, out, stage):
    best = load_file(out / str(stage) / "best" / "model.safetensors")
    expected = ranks[0][str(stage)]["weights"]
    assert best.keys() == expected.keys()
    assert all(torch.equal(best[name], expected[name]) for name in expected)
    state = load_checkpoint(checkpoints(out / str(stage))[-1])[1]["optimizer"]["state"]
    counts = [moments["step"] for moments in state.values()]
    assert len({count.data_ptr() for count in counts}) == len(counts)  # each goes on by itself


@pytest.mark.parametrize("stage", STAGES)
def test_a_loss_that_is_not_finite(ranks, stage):
    """Of the second process alone, in the second batch of step 2: both batches are left out."""
    for found in ranks:
        assert found[f"{stage}, one bad"]["skipped"] == [2]
        assert_same(found[f"{stage}, one bad"], found["0, one bad"])


def test_it_ends_the_run_and_leaves_the_checkpoint(ranks):
    for found in ranks:
        assert "at step 2; the batch held images scene-train-0000" in found["stopped"]["error"]
        assert found["stopped"]["left"] == ["checkpoint-0000001"]
    assert "loss is nan" in ranks[1]["stopped"]["error"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_finite_loss_with_a_gradient_that_is_not(ranks, stage):
    for found in ranks:
        assert found[f"{stage}, steep"]["skipped"] == [1]
        assert_same(found[f"{stage}, steep"], found["0, steep"])


def test_options_that_reach_deepspeed():
    deepspeed()
    options = ["--gradient_accumulation_steps=3", "--max_grad_norm=0.5", "--mixed_precision=bf16"]
    # what a launcher may say of them does not count
    launched = {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_GRADIENT_CLIPPING": "9"}
    config = zero_plugin(parse_options(options).train, launched).deepspeed_config
    assert config["gradient_accumulation_steps"] == 3 and config["gradient_clipping"] == 0.5
    assert config["zero_optimization"]["stage"] == 3
    assert config["torch_autocast"]["enabled"] and "bf16" not in config
    assert "gradient_clipping" not in zero_plugin(parse_options([]).train, {}).deepspeed_config


@pytest.mark.parametrize(
    ("option", "launched", "message"),
    [
        ("--cpu", {}, "--cpu is not supported with DeepSpeed: Accelerate would leave"),
        ("--cached_chunk=3", {}, "--cached_chunk 3 is not supported with DeepSpeed"),
        ("--mixed_precision=fp16", {}, "--mixed_precision fp16 is not supported"),
        ("", {"ZERO_STAGE": "0"}, "zero_stage 0 is not supported; there are 1, 2 and 3"),
        ("", {"CONFIG_FILE": "ds.json"}, "deepspeed_config_file is not supported"),
        ("", {"OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, "offload_optimizer_device is not supported"),
        ("", {"OFFLOAD_PARAM_DEVICE": "nvme"}, "offload_param_device is not supported"),
    ],
)
def test_what_is_refused(option, launched, message):
    args = parse_options([option] if option else []).train
    with pytest.raises(ValueError, match=message):
        zero_plugin(args, {f"ACCELERATE_DEEPSPEED_{k}": v for k, v in launched.items()})


def test_without_deepspeed_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ImportError, match=r"ascl-plugin\[deepspeed\]"):
        zero_plugin(parse_options([]).train, {})
