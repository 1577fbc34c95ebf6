"""Later steps keep no more objects and tensors alive than the first ones."""

from __future__ import annotations

import gc
import sys

import pytest
import torch

pytest.importorskip("accelerate", reason="extra `recipes`")
from accelerate import Accelerator
from sharding_ranks import build

from ascl_plugin.data import scenes
from ascl_plugin.training.parsing import parse_options
from ascl_plugin.training.resolve import resolve
from ascl_plugin.training.trainer import Trainer

# four epochs of 24 steps, with a validation and a checkpoint after each
OPTIONS = [
    "--batch_size=2", "--epochs=4", "--captions_per_epoch=12", "--save_every=0", "--log_every=12",
    "--negatives=gaussian", "--positives=none", "--dim=8", "--image_encoder.width=8",
    "--text_encoder.width=8", "--image_encoder.grid=2", "--fusion.num_heads=2", "--cpu=True",
]  # fmt: skip


def test_nothing_piles_up_over_the_steps(tmp_path, monkeypatch):
    """Blocks that Python has allocated, and live tensors: from step 36 to 84."""
    rows = dict.fromkeys(("train", "val"), scenes.make("train", 4, 0))
    trainer = build(Accelerator(cpu=True), resolve(parse_options(OPTIONS)), rows, tmp_path)
    found = {}

    def count(self, values):
        if "loss" in values:
            gc.collect()
            tensors = sum(isinstance(x, torch.Tensor) for x in gc.get_objects())
            found[self.step] = sys.getallocatedblocks(), tensors

    monkeypatch.setattr(Trainer, "_log", count)
    trainer.fit()
    assert max(found) == 96
    (blocks, tensors), (blocks_later, tensors_later) = found[36], found[84]
    assert tensors_later == tensors, found
    assert blocks_later - blocks < 240, found  # five a step; a batch or a graph is more
