"""Configurations of `accelerate launch`, as far as CPUs run them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="extra `recipes`")

pytestmark = pytest.mark.recipe

RECIPES = Path(__file__).parents[2] / "recipes"
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
OPTIONS = [
    "--cpu", "--scenes_train=8", "--scenes_val=4", "--scenes_test=4", "--epochs=1",
    "--align_epochs=0", "--batch_size=4", "--captions_per_epoch=1", "--max_steps=1", "--dim=8",
    "--image_encoder.width=8", "--text_encoder.width=8", "--image_encoder.grid=2",
    "--num_threads=1", "--log_with=none",
]  # fmt: skip


def command(name, folder, *launcher):
    config = RECIPES / "accelerate" / f"{name}.yaml"
    recipe = [RECIPES / "ascl_coco.py", *OPTIONS, f"--output_dir={folder}"]
    return list(map(str, [*LAUNCH, config, *launcher, *recipe]))


def children(pid):
    """The file that names the processes which a process started (Linux)."""
    return Path(f"/proc/{pid}/task/{pid}/children")


@pytest.mark.skipif(not children(os.getpid()).exists(), reason="/proc is Linux's")
def test_two_processes_end_alike_when_one_is_asked_to_stop(tmp_path):
    """SIGTERM to the second in the loop: a checkpoint, and status 143 for both."""
    long = [*command("ddp_cpu", tmp_path), "--max_steps=0", "--epochs=2000", "--log_every=1"]
    launcher = subprocess.Popen(long, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        log, deadline = tmp_path / "log.jsonl", time.monotonic() + 200
        while not (log.exists() and log.stat().st_size):
            assert launcher.poll() is None and time.monotonic() < deadline, launcher.communicate()
            time.sleep(0.02)
        mine = children(launcher.pid).read_text().split()
        os.kill(int(mine[-1]), signal.SIGTERM)
        said = launcher.communicate(timeout=60)[0]
    finally:
        launcher.kill()
    assert len(mine) == 2 and launcher.returncode == 1
    assert re.findall(r"exitcode +: (-?\d+)", said) == ["143", "143"], said
    assert "stopped by signal 15; to go on: the same options and" in said
    last = max(int(path.name[11:]) for path in tmp_path.glob("checkpoint-*"))
    assert f'{{"step": {last},' in log.read_text().splitlines()[-1]


def test_two_machines_of_one_process(tmp_path):
    """Both on this computer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--num_processes=2", f"--main_process_port={port}"]
    machines = [
        subprocess.Popen(
            command("ddp_nodes", tmp_path, *flags, f"--machine_rank={rank}"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [machine.communicate(timeout=250)[0] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert "processes: 2" in said[0] and (tmp_path / "metrics.json").exists()
    assert [text.count("val: 4 images") for text in said] == [1, 0]  # rank 0 alone prints


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "error: DeepSpeed is not supported"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "error: FSDP was asked for, but"),
    ],
)
def test_an_engine_that_cannot_be_had_is_one_line(
    run_recipe, monkeypatch, tmp_path, engine, message
):
    """As `accelerate launch` asks for it."""
    for name, value in engine.items():
        monkeypatch.setenv(name, value)
    code, told = run_recipe(*OPTIONS, f"--output_dir={tmp_path}")
    assert code == 2 and told.startswith(message)
