"""Every experiment on a tiny study of drawn scenes, from `ascl experiment` to its files."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("accelerate", reason="extra `recipes`")
pytest.importorskip("matplotlib", reason="extra `report`")

from ascl_plugin.commands.main import main as command
from ascl_plugin.experiments.plan import EXPERIMENTS

pytestmark = pytest.mark.recipe

STUDY = """
options: {
  scenes_train: 16, scenes_val: 4, scenes_test: 6, dim: 16, image_encoder.width: 16,
  text_encoder.width: 16, batch_size: 8,
  fusion.num_heads: 1, epochs: 1, captions_per_epoch: 1, num_threads: 1, cpu: true}
start: {align_epochs: 1}
seeds: [3]
models:
  full: {}
  plain: {positives: none, negatives: none}
experiments:
  main: {}
  ablations: {}
  strategies: {negatives: {mixture: full, none: plain}, positives: {both: full, none: plain}}
  rerank: {models: [full]}
  cases: {}
  asymmetry: {rows: 4}
  paired: {models: [full], rows: 4, draws: 2, steps: 2}
  front: {rows: 4}
"""


def run(folder, *names):
    study = folder / "study.yaml"
    study.write_text(STUDY)
    return command(
        ["experiment", *names, "--config", str(study), "--output_dir", str(folder), "--jobs", "2"]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ascl_plugin.experiments.paired.ITEMS", 20)  # noise of the small head
        assert run(folder, "all") == 0
    return folder


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_leaves_its_result(folder, name):
    result = json.loads((folder / name / "result.json").read_text())
    assert result["experiment"] == name and result["seeds"] == [3] and result["split"] == "test"
    assert result["command"].startswith("ascl ")
    assert result["tables"] or result["figures"] or result["cases"]
    assert all(table["rows"] for table in result["tables"])
    for figure in result["figures"]:
        light = folder / name / figure["file"]
        assert light.stat().st_size and light.with_suffix(f".dark{light.suffix}").stat().st_size
    assert result["title"] in (folder / name / "result.md").read_text()


def test_what_is_finished_is_not_run_again(folder):
    def dates():
        paths = [*folder.glob("runs/*/metrics.json"), *folder.glob("rerank/full-3.json")]
        return {path: path.stat().st_mtime_ns for path in paths}

    before = dates()
    assert len(before) == 4
    assert run(folder, "main", "rerank") == 0
    assert dates() == before


def test_an_unknown_name_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        run(folder, "ablation")
    assert "ablations" in capsys.readouterr().err
