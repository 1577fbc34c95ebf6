"""A thousand steps take no more memory than the first few."""

from __future__ import annotations

import pytest

pytest.importorskip("accelerate", reason="extra `recipes`")
import psutil
from accelerate import Accelerator

from ascl_plugin.asymmetry import AsymmetryCollator
from ascl_plugin.data import scenes
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs
from ascl_plugin.training.arguments import parse_options
from ascl_plugin.training.models import make_loss, make_model
from ascl_plugin.training.trainer import Trainer

# five epochs of 200 steps, with a validation and a checkpoint after each
OPTIONS = [
    "--batch_size=2", "--epochs=5", "--captions_per_epoch=100", "--save_every=0", "--log_every=50",
    "--negatives=gaussian", "--positives=none", "--dim=8", "--encoder_width=8", "--num_regions=4",
    "--num_heads=2", "--max_grad_norm=1", "--cpu=True",
]  # fmt: skip
WARM, ALLOWED = 400, 4 * 2**20  # steps; bytes, 7 KB a step


def test_resident_memory_is_flat_over_a_thousand_steps(tmp_path, monkeypatch):
    options = parse_options(OPTIONS)
    rows = scenes.make("train", 4, 0)
    model = make_model(options, rows["captions"][:])
    images, texts = ImageInputs(model.image_encoder), TextInputs(model.text_encoder)
    trainer = Trainer(
        Accelerator(cpu=True), model, make_loss(options.loss),
        AsymmetryCollator(texts, images, "none", "gaussian", 0), rows, rows,
        Evaluator(model, images, texts), options, tmp_path,
    )  # fmt: skip
    resident = {}

    def look(self, values):
        resident[self.step] = psutil.Process().memory_info().rss

    monkeypatch.setattr(Trainer, "_log", look)
    trainer.fit()
    assert max(resident) == 1000
    later = [size for step, size in resident.items() if step > WARM]
    assert len(later) >= 12
    growth = max(later) - resident[WARM]
    assert growth < ALLOWED, f"{growth:,} bytes more; by step: {resident}"
