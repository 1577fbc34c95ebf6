"""Configurations of `accelerate launch`, as far as CPUs run them."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="extra `recipes`")
import forked
from accelerate.commands import launch as launcher_program

pytestmark = pytest.mark.recipe

RECIPES = Path(__file__).parents[2] / "recipes"
OPTIONS = [
    "--cpu", "--scenes_train=8", "--scenes_val=4", "--scenes_test=4", "--epochs=1",
    "--align_epochs=0", "--batch_size=4", "--captions_per_epoch=1", "--max_steps=1", "--dim=8",
    "--image_encoder.width=8", "--text_encoder.width=8", "--image_encoder.grid=2",
    "--num_threads=1", "--log_with=none",
]  # fmt: skip


def launch(name, folder, output, *launcher, more=()):
    """Start `accelerate launch` of the recipe; what is printed goes into the file `output`."""
    config = f"--config_file={RECIPES / 'accelerate' / name}.yaml"
    recipe = [RECIPES / "ascl_coco.py", *OPTIONS, f"--output_dir={folder}", *more]
    return forked.start(launcher_program.__file__, [config, *launcher, *recipe], output=output)


def children(pid):
    """The file that names the processes which a process started (Linux)."""
    return Path(f"/proc/{pid}/task/{pid}/children")


@pytest.mark.skipif(not children(os.getpid()).exists(), reason="/proc is Linux's")
def test_two_processes_end_alike_when_one_is_asked_to_stop(tmp_path):
    """SIGTERM to the second in the loop: a checkpoint, and status 143 for both."""
    output = tmp_path / "output.txt"
    long = ["--max_steps=0", "--epochs=2000", "--log_every=1"]
    launcher = launch("ddp_cpu", tmp_path, output, more=long)
    try:
        log, deadline = tmp_path / "log.jsonl", time.monotonic() + 200
        while not (log.exists() and log.stat().st_size):
            assert launcher.is_alive() and time.monotonic() < deadline, output.read_text()
            time.sleep(0.02)
        mine = children(launcher.pid).read_text().split()
        os.kill(int(mine[-1]), signal.SIGTERM)
        launcher.join(60)
    finally:
        launcher.kill()
    said = output.read_text()
    assert len(mine) == 2 and launcher.exitcode == 1
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
    outputs = [tmp_path / f"{rank}.txt" for rank in range(2)]
    machines = [
        launch("ddp_nodes", tmp_path / "run", output, *flags, f"--machine_rank={rank}")
        for rank, output in enumerate(outputs)
    ]
    try:
        for machine in machines:
            machine.join(250)
    finally:
        for machine in machines:
            machine.kill()
    said = [output.read_text() for output in outputs]
    assert [machine.exitcode for machine in machines] == [0, 0], said
    assert "processes: 2" in said[0] and (tmp_path / "run" / "metrics.json").exists()
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
