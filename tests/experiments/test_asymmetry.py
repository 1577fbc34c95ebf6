"""The experiment of the asymmetry benchmark, on scenes and on captions, with a made scorer."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("datasets", reason="extra `recipes`")
pytest.importorskip("matplotlib", reason="extra `report`")
from ascl_plugin.data import scenes
from ascl_plugin.data.rows import caption_to_image
from ascl_plugin.experiments.asymmetry import experiment

SIZE = 8


class Evaluator:
    """Scores a text by how many of its words the captions of the row say; a little by chance."""

    batch_size = 4

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.prepared = []
        self.images = SimpleNamespace(prepare=lambda rows, *_, **__: self.prepared.extend(rows))

    def _one(self, row, text):
        said = set(" ".join(row.get("captions", ["a dog"])).split())
        return sum(1 if word in said else -20 for word in text.split()) + self.rng.random() / 2

    def pairs(self, rows, texts, index=None):
        chosen = range(len(texts)) if index is None else index
        return torch.tensor([self._one(rows[i], t) for i, t in zip(chosen, texts, strict=True)])

    def score(self, rows, texts):
        return torch.tensor([[self._one(row, text) for text in texts] for row in rows])


@pytest.fixture
def study(fake_study):
    made = fake_study(models=("full", "none"))
    rows = scenes.make("test", SIZE)
    made.evaluators = []

    def trained(model, seed):
        texts, index = caption_to_image(made.data)
        made.evaluators.append(Evaluator(seed))
        return SimpleNamespace(
            rows=made.data,
            evaluator=made.evaluators[-1],
            caption_to_image=index,
            sim=made.evaluators[-1].score(made.data, texts),
        )

    made.data, made.rows, made.trained = rows, lambda: made.data, trained
    return made


def test_scenes(study):
    result = experiment(study, {"rows": 5})
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
    folder = study.folder / "asymmetry"
    for figure in result.figures:
        assert "false phrases added" in figure.path.read_text() and figure.dark.exists()
    written = json.loads((folder / "variants.json").read_text())
    assert len(written) == 5 and written[0]["amounts"]["words removed"]


def test_finished_cells_are_not_scored_again(study):
    first = experiment(study, {})
    made = len(study.evaluators)
    of_none = [row for row in first.tables[1].rows if row["model"] == "none"]
    assert experiment(study, {"models": ["none"]}).tables[1].rows == of_none
    assert made == len(study.evaluators) == 4


def test_real_captions_and_sugarcrepe(study, tmp_path):
    pytest.importorskip("textblob", reason="extra `words`")
    study.data = study.data.select_columns(["image_id", "image", "captions"])
    entry = {"filename": "1.jpg", "caption": "a dog", "negative_caption": "a cat"}
    (tmp_path / "replace_obj.json").write_text(json.dumps({"0": entry}))
    (tmp_path / "1.jpg").write_bytes(b"")
    result = experiment(study, {"models": ["full"], "sugarcrepe": str(tmp_path)})
    assert len(result.tables) == 5  # no variants of scenes
    (row,) = result.tables[-1].rows
    assert (row["kind"], row["accuracy"]) == ("replace_obj", "100.0 ± 0.0") and "blind" in row
    assert study.evaluators[0].prepared[0]["image"]["path"].endswith("1.jpg")
    assert "passes for absent" in result.notes[0]
