"""Later steps keep no more objects and tensors alive than the first ones."""

from __future__ import annotations

import gc
import sys

import pytest
import torch

pytest.importorskip("accelerate", reason="extra `recipes`")
from accelerate import Accelerator

from ascl_plugin.asymmetry import AsymmetryCollator
from ascl_plugin.data import scenes
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs
from ascl_plugin.training.arguments import parse_options
from ascl_plugin.training.models import make_loss, make_model
from ascl_plugin.training.resolve import resolve
from ascl_plugin.training.trainer import Trainer

# four epochs of 50 steps, with a validation and a checkpoint after each
OPTIONS = [
    "--batch_size=2", "--epochs=4", "--captions_per_epoch=25", "--save_every=0", "--log_every=25",
    "--negatives=gaussian", "--positives=none", "--dim=8", "--image_encoder.width=8",
    "--text_encoder.width=8", "--image_encoder.grid=2", "--fusion.num_heads=2", "--cpu=True",
]  # fmt: skip


def test_nothing_piles_up_over_the_steps(tmp_path, monkeypatch):
    """Blocks that Python has allocated, and live tensors: from step 75 to 175."""
    options = resolve(parse_options(OPTIONS))
    rows = scenes.make("train", 4, 0)
    model = make_model(options, rows["captions"][:])
    images, texts = ImageInputs(model.image_encoder), TextInputs(model.text_encoder)
    trainer = Trainer(
        Accelerator(cpu=True), model, make_loss(options.loss.loss),
        AsymmetryCollator(texts, images, "none", "gaussian", 0), rows, rows,
        Evaluator(model, images, texts), options, tmp_path,
    )  # fmt: skip
    found = {}

    def count(self, values):
        if "loss" in values:
            gc.collect()
            tensors = sum(isinstance(x, torch.Tensor) for x in gc.get_objects())
            found[self.step] = sys.getallocatedblocks(), tensors

    monkeypatch.setattr(Trainer, "_log", count)
    trainer.fit()
    assert max(found) == 200
    (blocks, tensors), (blocks_later, tensors_later) = found[75], found[175]
    assert tensors_later == tensors, found
    assert blocks_later - blocks < 500, found  # five a step; a batch or a graph is more
