"""Configurations of `accelerate launch`, as far as CPUs run them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="extra `recipes`")

pytestmark = pytest.mark.recipe

RECIPES = Path(__file__).parents[2] / "recipes"
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
OPTIONS = [
    "--cpu", "--scenes_train=8", "--scenes_val=4", "--scenes_test=4", "--epochs=1",
    "--align_epochs=0", "--batch_size=4", "--captions_per_epoch=1", "--max_steps=1", "--dim=8",
    "--encoder_width=8", "--num_regions=4", "--num_threads=1", "--log_with=none",
]  # fmt: skip


def command(name, folder, *launcher):
    config = RECIPES / "accelerate" / f"{name}.yaml"
    recipe = [RECIPES / "ascl_coco.py", *OPTIONS, f"--output_dir={folder}"]
    return list(map(str, [*LAUNCH, config, *launcher, *recipe]))


def test_two_processes_on_cpus(tmp_path):
    done = subprocess.run(command("ddp_cpu", tmp_path), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "processes: 2" in done.stdout and (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_deepspeed_on_cpus(tmp_path, name):
    pytest.importorskip("deepspeed", reason="extra `deepspeed`")
    launched = command(name, tmp_path, "--num_processes=2")
    launched.remove("--cpu")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(launched, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "processes: 2" in done.stdout and (tmp_path / "metrics.json").exists()


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


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "error: --cpu is not supported with DeepSpeed"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "error: FSDP was asked for, but"),
    ],
)
def test_an_engine_that_cannot_be_had_is_one_line(tmp_path, engine, message):
    """As `accelerate launch` asks for it."""
    done = subprocess.run(
        [sys.executable, RECIPES / "ascl_coco.py", *OPTIONS, f"--output_dir={tmp_path / 'run'}"],
        env={**os.environ, **engine}, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(message)
