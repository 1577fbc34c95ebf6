"""The check of a GPU at toy size: it has to work the first time that a GPU can be had."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"


@pytest.mark.recipe
def test_every_part_runs_at_toy_size(tmp_path):
    for needed in ("triton", "accelerate", "open_clip", "webdataset"):
        pytest.importorskip(needed, reason="extras `recipes`, `open-clip` and `examples`")
    command = [sys.executable, str(SCRIPT), "--toy", "--together", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    failed = [row for row in rows if "error" in row["row"] or row["row"].get("ok") is False]
    assert done.returncode == 0, f"{done.stdout[-4000:]} {failed} {done.stderr}"
    assert len([row for row in rows if row["table"] == "parts"]) == 8
    assert "**training step**" in done.stdout and " 0 failed; results in" in done.stdout


@pytest.mark.recipe
def test_a_part_that_fails_leaves_its_rows_and_the_next_goes_on(tmp_path, monkeypatch):
    """Each in a process of its own."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "open_clip.py").write_text("raise RuntimeError('as broken as can be')")
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import gpu_check;"
        f"gpu_check.LIMITS['step'] = 0.1 / gpu_check.SLOWER; sys.exit(gpu_check.main())"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    command = [sys.executable, "-c", code, "--toy", "--out", str(tmp_path)]
    command += ["--parts", "step", "open_clip"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    found = {row["row"]["part"]: row["row"] for row in rows if row["table"] == "parts"}
    assert done.returncode == 1
    assert found["step"]["error"] == "stopped after 0.1 s"
    assert "as broken as can be" in found["open_clip"]["error"]
    assert "RuntimeError" in next(row["traceback"] for row in rows if "traceback" in row)
