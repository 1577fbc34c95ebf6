"""A recipe with negatives made in the text: it runs, and plans every text that it asks for."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("accelerate", reason="extra `recipes`")
pytest.importorskip("textblob", reason="extra `words`")

from ascl_plugin.retrieval.inputs import TextInputs
from ascl_plugin.training.trainer import Trainer

pytestmark = pytest.mark.recipe


def test_insert(tmp_path, monkeypatch, run_recipe):
    """What a cache of a frozen text encoder is filled with is what the batches hold."""
    planned, asked = set(), set()
    tokenize, fit = TextInputs.__call__, Trainer.fit

    def recording(self, texts):
        asked.update(texts)
        return tokenize(self, texts)

    def planning(self):
        planned.update(self.planned_texts())
        monkeypatch.setattr(TextInputs, "__call__", recording)
        fit(self)

    monkeypatch.setattr(Trainer, "fit", planning)
    monkeypatch.setattr(Trainer, "_validate", lambda self, bar: None)
    monkeypatch.setattr(Trainer, "load_best", lambda self: monkeypatch.undo())
    code, _ = run_recipe(
        "--dim=16", "--image_encoder.width=16", "--text_encoder.width=16", "--cpu=True",
        "--num_threads=1", "--log_with=none",
        "--scenes_train=16", "--scenes_val=4", "--scenes_test=4", "--epochs=3", "--align_epochs=1",
        "--batch_size=8", "--captions_per_epoch=1", "--log_every=1", "--negatives=insert",
        f"--output_dir={tmp_path}",
    )  # fmt: skip
    assert code == 0
    assert asked == planned
    assert len(planned) >= 16 + 2 * 16 * 2  # an epoch of captions, two of two negatives a pair
    lines = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert sum("loss" in line for line in lines) == 6
