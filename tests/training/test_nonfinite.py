"""Losses and gradients that are not finite: the run ends, or leaves the step out and counts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("accelerate", reason="extra `recipes`")
from accelerate import Accelerator
from safetensors.torch import load_file

from ascl_plugin import AsymmetryLoss, registry
from ascl_plugin.training import batches as order
from ascl_plugin.training import step as loop
from ascl_plugin.training.checkpoint import checkpoints, load_checkpoint
from ascl_plugin.training.nonfinite import BadBatches, finite_gradients
from ascl_plugin.training.parsing import parse_options

CONFIG = Path(__file__).parents[2] / "recipes" / "configs" / "small.yaml"
# an epoch of 5 steps
OPTIONS = [
    "--scenes_train=20", "--scenes_val=6", "--scenes_test=6", "--epochs=1", "--batch_size=4",
    "--captions_per_epoch=1", "--dim=16", "--image_encoder.width=16", "--text_encoder.width=16",
    "--save_every=1", "--log_every=1",
    "--align_epochs=0", "--image_encoder.grid=3", "--cpu=True", "--num_threads=1",
    "--log_with=none",
]  # fmt: skip
STEPS = 5


@pytest.fixture
def main(run_recipe, monkeypatch):
    """The recipe in this process, whose batches of some numbers are not numbers.

    `main(folder, *options, bad=(2,))` -> (exit status, last line of stderr)."""
    plain = loop.to_inputs

    def run(folder, *more, bad=()):
        options = parse_options([*OPTIONS, *more], CONFIG)
        batches = order.epoch_batches(0, 0, [5] * 20, options.train.batch_size, 1)
        poisoned = {row for number in bad for row, _ in batches[number - 1]}

        def poison(batch, device):
            inputs = plain(batch, device)
            if poisoned & set(batch["row"].tolist()):
                inputs["pixel_values"] = inputs["pixel_values"] * torch.nan
            return inputs

        monkeypatch.setattr(loop, "to_inputs", poison)
        return run_recipe(*OPTIONS, *more, f"--output_dir={folder}")

    return run


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder):
    return load_file(checkpoints(folder)[-1] / "model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_it_ends_the_run_names_the_batch_and_leaves_the_checkpoint(main, tmp_path):
    """And the run goes on from there, with leave to skip, to where one that had it arrives."""
    stopped, left_alone = tmp_path / "stopped", tmp_path / "alone"
    code, told = main(stopped, bad=(3,))
    assert code == 2 and told.startswith("error: loss is nan at step 3; the batch held images ")
    ids = lines(stopped)[-1]["images"]
    assert len(ids) == 4 and all(name in told for name in ids)
    assert "--skip_bad_batches" in told and not (stopped / "metrics.json").exists()
    state = load_checkpoint(checkpoints(stopped)[-1])[1]
    assert state["step"] == 2 and state["skipped_steps"] == []
    assert all(w.isfinite().all() for w in weights(stopped).values())

    assert main(stopped, "--resume", "--skip_bad_batches=1", bad=(3,))[0] == 0
    assert main(left_alone, "--skip_bad_batches=2", bad=(3,))[0] == 0
    assert equal(weights(stopped), weights(left_alone))
    for folder in (stopped, left_alone):
        assert json.loads((folder / "metrics.json").read_text())["skipped_steps"] == [3]
        found = [line for line in lines(folder) if "not_finite" in line]
        assert found == [{"step": 3, "epoch": 0, "not_finite": "loss is nan", "images": ids}]
        assert [line["step"] for line in lines(folder) if "loss" in line] == [1, 2, 4, 5]
        assert load_checkpoint(checkpoints(folder)[-1])[1]["step"] == STEPS


def test_one_more_than_allowed_ends_the_run(main, tmp_path):
    code, told = main(tmp_path, "--skip_bad_batches=1", bad=(2, 4))
    assert code == 2 and "loss is nan at step 4" in told and "1 steps were skipped before" in told
    assert load_checkpoint(checkpoints(tmp_path)[-1])[1]["skipped_steps"] == [2]
    # counted over interruptions
    code, told = main(tmp_path, "--resume", "--skip_bad_batches=1", bad=(2, 4))
    assert code == 2 and "1 steps were skipped before" in told


@pytest.mark.parametrize("bad", [1, 2])
def test_with_accumulation_the_whole_step_is_left_out(main, tmp_path, bad):
    """One step of two batches, whichever is bad: weights are as at the start.

    A rate of 1e-60 moves none of them.
    """
    options = "--gradient_accumulation_steps=2", "--max_steps=1", "--skip_bad_batches=1"
    assert main(tmp_path / "bad", *options, bad=(bad,))[0] == 0
    assert (
        main(tmp_path / "still", *options, "--learning_rate=1e-60", "--schedule=constant")[0] == 0
    )
    assert main(tmp_path / "moved", *options)[0] == 0
    start = weights(tmp_path / "still")
    assert equal(weights(tmp_path / "bad"), start)
    assert not equal(weights(tmp_path / "moved"), start)
    assert len(lines(tmp_path / "bad")[0]["images"]) == 4 * bad


class Steep(AsymmetryLoss):
    """A finite loss whose gradient is not: the root of what is 0."""

    def forward(self, sim, *others):
        return super().forward(sim) + (sim - sim.detach()).abs().sqrt().sum()


def test_a_finite_loss_with_a_gradient_that_is_not(main, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_registered", {**registry._registered, ("loss", "steep"): Steep})
    nothing = "--negatives=none", "--positives=none"
    code, told = main(tmp_path / "a", "--loss=steep", *nothing)
    assert code == 2 and "a gradient is not finite at step 1; the batch held images" in told
    assert not checkpoints(tmp_path / "a")
    code, told = main(tmp_path / "b", "--loss=steep", "--skip_bad_batches=9", *nothing)
    assert code == 0
    assert json.loads((tmp_path / "b" / "metrics.json").read_text())["skipped_steps"] == [
        1, 2, 3, 4, 5,
    ]  # fmt: skip
    assert all(w.isfinite().all() for w in weights(tmp_path / "b").values())


def test_cached_parts_train_as_the_whole_batch(main, tmp_path):
    """And a bad batch among them is left out likewise."""
    options = "--negatives=gaussian", "--skip_bad_batches=1"
    for name, more in (("whole", ()), ("parts", ("--cached_chunk=3",))):
        assert main(tmp_path / name, *options, *more, bad=(2,))[0] == 0
    found, expected = (
        [line["loss"] for line in lines(tmp_path / name) if "loss" in line]
        for name in ("parts", "whole")
    )
    assert len(found) == STEPS - 1 and found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found == pytest.approx(expected, rel=1e-3)


def test_running_means_are_put_back():
    model = nn.BatchNorm1d(2)
    logged = []
    bad = BadBatches(
        Accelerator(cpu=True), model, lambda rows: ["ab"[row] for row in rows], 1, logged.append
    )
    bad.begin()
    model(torch.tensor([[1.0, torch.nan], [2.0, 3.0]]))
    assert model.running_mean.isnan().any()
    assert not bad.all_finite(False, "loss is nan", 7, [1])
    assert model.running_mean.tolist() == [0, 0] and model.num_batches_tracked == 0
    assert bad.steps == [7]
    assert logged == [{"step": 7, "not_finite": "loss is nan", "images": ["b"]}]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, -1e30])
def test_finite_gradients(value):
    """Adam's square of -1e30 would be infinite, and stay so."""
    model = nn.Linear(3, 2)
    assert finite_gradients(model.parameters())
    model.weight.grad, model.bias.grad = torch.full((2, 3), 1e18), torch.zeros(2)
    assert finite_gradients(model.parameters())
    model.weight.grad[1, 2] = value
    assert not finite_gradients(model.parameters())
