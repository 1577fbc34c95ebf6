"""A run that is killed, stopped and resumed ends where a run left alone ends, bit for bit."""

from __future__ import annotations

import json
import os
import random
import re
import runpy
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate", reason="extra `recipes`")
import forked
from safetensors.torch import load_file

from ascl_plugin.data import scenes
from ascl_plugin.training.checkpoint import checkpoints, load_checkpoint
from ascl_plugin.training.trainer import Trainer

pytestmark = pytest.mark.recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "ascl_coco.py"
main_here = runpy.run_path(str(RECIPE))["main"]
# 3 epochs of 8 steps, the first by late interaction; checkpoints every 3 steps: most of them in
# the middle of an epoch
OPTIONS = [
    "--scenes_train=32", "--scenes_val=8", "--scenes_test=8", "--epochs=3", "--batch_size=4",
    "--captions_per_epoch=1", "--dim=16", "--image_encoder.width=16", "--text_encoder.width=16",
    "--save_every=3", "--log_every=1",
    "--align_epochs=1", "--eval_every=1", "--loss.temperature=0.05",
    "--cpu=True", "--num_threads=1", "--log_with=none",
]  # fmt: skip
STEPS = 24


def start(folder, *more):
    """The recipe as a process of its own; what it prints goes into output.txt."""
    folder.mkdir(exist_ok=True)
    arguments = [*OPTIONS, f"--output_dir={folder}", *more]
    return forked.start(RECIPE, arguments, output=folder / "output.txt")


def finish(process, folder):
    process.join(240)
    code = process.exitcode
    process.kill()
    return code, (folder / "output.txt").read_text()


def last_step(folder):
    log = folder / "log.jsonl"
    found = re.findall(r'"step": (\d+),', log.read_text()) if log.exists() else []
    return max(map(int, found), default=0)


def stop_at(folder, step, number, *more):
    """Starts the recipe and sends it a signal once `step` is logged."""
    process = start(folder, *more)
    deadline = time.monotonic() + 240
    while last_step(folder) < step:
        assert process.exitcode is None, (folder / "output.txt").read_text()
        assert time.monotonic() < deadline, f"no step {step} in 240 s"
        time.sleep(0.002)
    os.kill(process.pid, number)
    return finish(process, folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    assert main_here([*OPTIONS, f"--output_dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """A run killed at a random step, resumed, stopped by Ctrl-C at another, resumed to its end."""
    folder = tmp_path_factory.mktemp("disturbed")
    chance = random.Random(int(os.environ.get("ASCL_TEST_SEED", "0")))
    killed = stop_at(folder, chance.randint(1, 8), signal.SIGKILL)
    after_kill = [int(path.name[11:]) for path in checkpoints(folder)]
    stopped = stop_at(folder, last_step(folder) + chance.randint(1, 6), signal.SIGINT, "--resume")
    after_stop = [int(path.name[11:]) for path in checkpoints(folder)]
    logged = last_step(folder)
    assert main_here([*OPTIONS, f"--output_dir={folder}", "--resume"]) == 0
    return {
        "folder": folder, "killed": killed, "after_kill": after_kill, "stopped": stopped,
        "after_stop": after_stop, "logged": logged,
    }  # fmt: skip


def test_the_kill_was_a_kill_and_left_whole_checkpoints_only(disturbed):
    code, _ = disturbed["killed"]
    assert code == -signal.SIGKILL
    assert all(step % 3 == 0 or step % 8 == 0 for step in disturbed["after_kill"])


def test_ctrl_c_leaves_a_checkpoint_of_the_last_whole_step(disturbed):
    code, output = disturbed["stopped"]
    assert code == 130
    assert disturbed["after_stop"][-1] == disturbed["logged"] < STEPS
    assert "stopped by signal 2; to go on: the same options and --output_dir" in output
    assert "Traceback" not in output
    if disturbed["after_kill"]:
        assert f"checkpoint-{disturbed['after_kill'][-1]:07d}, step" in output


def test_weights_and_optimiser_are_bitwise_those_of_a_run_left_alone(alone, disturbed):
    folder = disturbed["folder"]
    for name in ("best/model.safetensors", f"checkpoint-{STEPS:07d}/model.safetensors"):
        assert (folder / name).read_bytes() == (alone / name).read_bytes(), name
    states = [load_checkpoint(checkpoints(f)[-1])[1] for f in (alone, folder)]
    for name in ("step", "epoch", "batch", "best", "bad_validations"):
        assert states[0][name] == states[1][name], name
    moments = [state["optimizer"]["state"] for state in states]
    for number, moment in moments[0].items():
        for name, value in moment.items():
            assert torch.equal(value, moments[1][number][name]), (number, name)


def test_the_log_and_the_metrics_are_those_of_a_run_left_alone(alone, disturbed):
    """Every line once, whatever was logged before the kill and done again after it."""
    logs = []
    for folder in (alone, disturbed["folder"]):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for line in lines:
            line.pop("pairs_per_second", None)
        logs.append(lines)
    assert len(logs[0]) == STEPS + 3
    for line, expected in zip(logs[1], logs[0], strict=True):
        if "loss" in line:
            assert line == expected  # a loss logged each step needs no history
        assert line.keys() == expected.keys()
    metrics = [json.loads((f / "metrics.json").read_text()) for f in (alone, disturbed["folder"])]
    for name in ("val", "test", "best"):
        assert metrics[0][name] == metrics[1][name]


@pytest.fixture
def main(run_recipe):
    """The recipe in this process: (exit status, last line of stderr)."""
    return lambda folder, *more: run_recipe(*OPTIONS, f"--output_dir={folder}", *more)


def test_a_second_run_into_the_same_folder_is_refused(main, alone):
    before = (alone / "metrics.json").read_bytes()
    code, told = main(alone)
    assert code == 2
    assert told.startswith("error: ") and "holds a run; --resume goes on" in told
    assert (alone / "metrics.json").read_bytes() == before


def test_options_that_change_a_step_must_not_change_on_the_way(main, alone):
    before = (alone / "config.yaml").read_bytes()
    code, told = main(alone, "--resume", "--loss.temperature=0.2")
    assert code == 2
    assert "was written with loss.temperature=0.05, this run has 0.2" in told
    assert (alone / "config.yaml").read_bytes() == before


def test_other_data_under_the_same_options_are_refused(main, alone, monkeypatch):
    """As where the file of annotations was made anew, its images in another order."""
    plain = scenes.make
    monkeypatch.setattr(scenes, "make", lambda *a: plain(*a).select(range(a[1])[::-1]))
    code, told = main(alone, "--resume")
    assert code == 2
    assert "was written with training data='32 images, SHA-256 " in told


def test_sigterm_leaves_a_checkpoint_and_a_status_of_its_own(main, tmp_path, monkeypatch):
    log = Trainer._log

    def stop(trainer, values):
        log(trainer, values)
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_log", stop)
    code, told = main(tmp_path)
    assert code == 128 + signal.SIGTERM
    assert told.startswith("stopped by signal 15; to go on: the same options and")
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-0000002"]


def test_a_damaged_best_model_is_named_and_made_again_without_it(main, alone, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(alone, folder)
    weights = folder / "best" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, told = main(folder, "--resume")
    assert code == 2 and f"{folder / 'best'} is damaged (model.safetensors is damaged: its" in told
    shutil.rmtree(folder / "best")
    assert main(folder, "--resume")[0] == 0
    last = load_file(checkpoints(folder)[-1] / "model.safetensors")
    assert all(torch.equal(value, last[name]) for name, value in load_file(weights).items())
