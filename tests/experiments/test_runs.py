"""Runs of a study: trained once, started from a shared run, never of other options."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("yaml", reason="extra `recipes`")
pytest.importorskip("tqdm", reason="extra `recipes`")
import yaml

from ascl_plugin.experiments.plan import Plan
from ascl_plugin.experiments.runs import Runs

RECIPE = """
import json, sys, time
from pathlib import Path
import yaml
options = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
folder = Path(sys.argv[sys.argv.index("--output_dir") + 1])
assert "--resume" in sys.argv
if options.get("start_from"):
    assert (Path(options["start_from"]) / "metrics.json").exists()
time.sleep(options.get("sleep", 0))
if options.get("fail"):
    print("what went wrong"), sys.exit(2)
folder.mkdir(parents=True, exist_ok=True)
count = folder / "count"
count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
(folder / "metrics.json").write_text(json.dumps(options))
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE)
    return f"python {path}"


def counts(runs):
    return {p.parent.name: int(p.read_text()) for p in runs.folder.glob("*/count")}


def test_each_run_is_trained_once_after_its_start(tmp_path, recipe):
    plan = Plan(
        models={"a": {"x": 1}, "b": {"start_from": "none"}},
        options={"x": 0, "y": 2},
        start={"x": 5},
        launch=recipe,
    )
    runs = Runs(plan, tmp_path / "runs", jobs=2)
    runs.train([("a", 0), ("b", 0), ("a", 0)])
    assert counts(runs) == {"start-0": 1, "a-0": 1, "b-0": 1}
    runs.train([("a", 0), ("a", 1), ("start", 1)])
    assert counts(runs) == {"start-0": 1, "a-0": 1, "b-0": 1, "start-1": 1, "a-1": 1}
    runs.train([("start", 2)])
    assert counts(runs)["start-2"] == 1
    asked = {"log_with": "none", "save_scores": True, "seed": 0}
    start = str(tmp_path / "runs" / "start-0")
    assert runs.metrics("a", 0) == {"x": 1, "y": 2, "start_from": start, **asked}
    assert runs.metrics("b", 0) == {"x": 0, "y": 2, **asked}
    assert runs.metrics("start", 0) == {"x": 5, "y": 2, **asked}


def test_the_recipes_config_comes_first(tmp_path, recipe):
    (tmp_path / "config.yaml").write_text("{x: 1, y: 1, z: 1}")
    plan = Plan(
        {"a": {"z": 3}}, config=str(tmp_path / "config.yaml"), options={"y": 2}, launch=recipe
    )
    runs = Runs(plan, tmp_path / "runs")
    runs.train([("a", 7)])
    found = runs.metrics("a", 7)
    assert (found["x"], found["y"], found["z"], found["seed"]) == (1, 2, 3, 7)


def test_a_finished_run_of_other_options_is_refused(tmp_path, recipe):
    Runs(Plan({"a": {"x": 1}}, launch=recipe), tmp_path).train([("a", 0)])
    with pytest.raises(ValueError, match=r"a-0 was trained with x=1, the study now says 2"):
        Runs(Plan({"a": {"x": 2}}, launch=recipe), tmp_path).train([("a", 0)])


def test_a_failed_run_is_named_and_the_others_are_kept(tmp_path, recipe):
    plan = Plan({"bad": {"fail": True}, "good": {}}, launch=recipe)
    runs = Runs(plan, tmp_path / "runs")
    with pytest.raises(RuntimeError, match=r"bad-0 ended with status 2, see .*bad-0\.log"):
        runs.train([("bad", 0), ("good", 0)])
    assert counts(runs) == {"good-0": 1}
    assert "what went wrong" in (runs.folder / "bad-0.log").read_text()


def test_sigterm_ends_the_runs_too(tmp_path, recipe):
    study = {"models": {"slow": {"sleep": 60}}, "launch": recipe, "experiments": {"main": {}}}
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "ascl_plugin.commands.main",
        "experiment",
        "main",
        "--jobs",
        "2",
    ]
    command += ["--config", str(tmp_path / "study.yaml"), "--output_dir", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(out.glob("runs/slow-1.log")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.terminate()
    _, told = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM, told
    with pytest.raises(ProcessLookupError):  # nobody is left in its group
        os.killpg(process.pid, 0)
    assert yaml.safe_load((out / "runs" / "slow-0.yaml").read_text())["sleep"] == 60
    assert not list(Path(out).glob("runs/*/metrics.json"))
