"""Benchmarks: each script prints its help; kills lose nothing, a trial of each."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
# two are modules of others; options of training_loop.py are those of the recipe
WITHOUT = ("gpu_parts", "measure", "training_loop")


@pytest.mark.parametrize(
    "path", [p for p in sorted(SCRIPTS.glob("*.py")) if p.stem not in WITHOUT], ids=lambda p: p.stem
)
def test_each_script_prints_its_help(path, monkeypatch, capsys):
    for needed in ("accelerate", "webdataset", "tqdm"):
        pytest.importorskip(needed, reason="extras `recipes` and `examples`")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.recipe
@pytest.mark.skipif(sys.platform != "linux", reason="forks and signals")
def test_kills_lose_nothing():
    """In a process of its own: it forks, and this one has threads."""
    pytest.importorskip("accelerate", reason="extra `recipes`")
    command = [sys.executable, str(SCRIPTS / "faults.py"), "--trials=8", "--seed=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 8 | 0 | |" in done.stdout
