"""The experiment of the asymmetry benchmark, on scenes and on captions, with a made scorer."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("datasets", reason="extra `recipes`")
pytest.importorskip("matplotlib", reason="extra `report`")
from ascl_plugin.experiments.asymmetry import experiment


def test_scenes(read_study):
    result = experiment(read_study, {"rows": 5})
    balanced, accuracies, ranks, changes, own, recalls = (table.rows for table in result.tables)
    assert [row["model"] for row in recalls] == ["full", "none"]
    for rows in (balanced, accuracies, own):
        assert list(dict.fromkeys(row["model"] for row in rows)) == ["full", "none"]
    assert balanced[0]["kind"] == "added" and balanced[0]["blind"] == "50.0 ± 0.0"
    assert accuracies[0]["negative"] == "add" and accuracies[0]["accuracy"] == "100.0 ± 0.0"
    assert {"blind", "difference"} < set(accuracies[0]) and "5 add" in result.tables[1].caption
    assert {row["texts"] for row in ranks if row["positive"] == "caption"} == {5}
    (step,) = (
        row for row in changes
        if (row["model"], row["what is done"], row["amount"]) == ("none", "false phrases added", 2)
    )  # fmt: skip
    assert step["falls"] == "100.0 ± 0.0" and step["change"].startswith("-")
    assert own[1]["contest"] == "asym1_richer" and "blind" in own[1]
    folder = read_study.folder / "asymmetry"
    for figure in result.figures:
        assert "false phrases added" in figure.path.read_text() and figure.dark.exists()
    written = json.loads((folder / "variants.json").read_text())
    assert len(written) == 5 and written[0]["amounts"]["words removed"]


def test_finished_cells_are_not_scored_again(read_study):
    first = experiment(read_study, {})
    made = len(read_study.evaluators)
    of_none = [row for row in first.tables[1].rows if row["model"] == "none"]
    assert experiment(read_study, {"models": ["none"]}).tables[1].rows == of_none
    assert made == len(read_study.evaluators) == 4


def test_real_captions_and_sugarcrepe(read_study, tmp_path):
    pytest.importorskip("textblob", reason="extra `words`")
    read_study.data = read_study.data.select_columns(["image_id", "image", "captions"])
    entry = {"filename": "1.jpg", "caption": "a dog", "negative_caption": "a cat"}
    (tmp_path / "replace_obj.json").write_text(json.dumps({"0": entry}))
    (tmp_path / "1.jpg").write_bytes(b"")
    result = experiment(read_study, {"models": ["full"], "sugarcrepe": str(tmp_path)})
    assert len(result.tables) == 5  # no variants of scenes
    (row,) = result.tables[-1].rows
    assert (row["kind"], row["accuracy"]) == ("replace_obj", "100.0 ± 0.0") and "blind" in row
    assert read_study.evaluators[0].prepared[0]["image"]["path"].endswith("1.jpg")
    assert "passes for absent" in result.notes[0]
