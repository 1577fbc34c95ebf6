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


def test_nothing_is_lost_and_nothing_damaged_is_loaded():
    """In a process of its own: it forks, which one with threads must not."""
    command = [sys.executable, str(SCRIPT), "--trials=17", "--seed=1", "--jobs=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 17 | 17 | 0 | |" in done.stdout
