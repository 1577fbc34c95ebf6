"""A trial of every fault: `benchmarks/faults.py` does hundreds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

for needed in ("accelerate", "h5py"):
    pytest.importorskip(needed, reason="extras `recipes` and `regions`")
pytest.importorskip("fcntl", reason="not on Windows")

pytestmark = pytest.mark.recipe

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"


def trials(number, *more):
    """The script's table and what it said; a process of its own: it forks, and this has threads."""
    command = [sys.executable, str(SCRIPT), f"--trials={number}", "--jobs=2", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| all | {number} | {number} | 0 | |" in done.stdout


def test_nothing_is_lost_and_nothing_damaged_is_loaded():
    """The first faults are those of one process, one after another."""
    trials(17, "--seed=1")


def test_two_processes_end_together_and_lose_nothing():
    names = ["SIGKILL of the second", "SIGKILL of the launcher", "SIGTERM to one", "Ctrl-C to all"]
    trials(4, "--seed=1", "--only", *names)
