"""AsymmetryMixin in Lightning's trainer: two processes are one with the whole batch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

if __name__ != "__main__":
    pytest.importorskip("lightning", reason="extra `lightning`")
import lightning
from torch.testing import assert_close
from torch.utils.data import DataLoader

sys.path.append(str(Path(__file__).parents[3] / "examples"))
from two_colours import DualEncoder, pictures, rows, tokenize

from ascl_plugin import AsymmetryCollator, AsymmetryLoss
from ascl_plugin.adapters.losses.embeddings import EmbeddingLoss
from ascl_plugin.adapters.losses.lightning import AsymmetryMixin


class Retrieval(AsymmetryMixin, lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = DualEncoder(8)
        learned = AsymmetryLoss(0.1, reduction="clip", learn_temperature=True)
        self.asymmetry = EmbeddingLoss(learned)

    def encode_image(self, batch):
        return self.model.encode_image(batch["pixel_values"])

    def encode_text(self, batch):
        return self.model.encode_text(batch["input_ids"], batch["attention_mask"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def on_before_optimizer_step(self, optimizer):
        self.found = {n: p.grad.clone() for n, p in self.named_parameters()}


def fitted(data, devices):
    """Gradients of a step, and the logged terms."""
    collate = AsymmetryCollator(tokenize, pictures, negatives="gaussian")
    batches = [[{**row, "epoch": 0} for row in data]]
    loader = DataLoader(batches, batch_size=None, collate_fn=collate)
    module = Retrieval()
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", devices=devices, logger=False, barebones=False,
        strategy="ddp" if devices > 1 else "auto", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    return module.found | dict(trainer.callback_metrics)


def one_rank(rank, out):
    torch.distributed.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    torch.save(fitted(rows()[4 * rank :][:4], 2), f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_are_one_with_the_whole_batch(run_ranks, tmp_path):
    """Gradients of model and learned temperature, and the logged loss, the sum of its terms."""
    whole = fitted(rows()[:8], 1)
    assert_close(whole["loss"], whole["asymmetry_loss"] + whole["positive_loss"])
    assert whole["asymmetry.loss.temperature.log"] != 0
    for found in run_ranks(__file__, tmp_path):
        assert_close(found, whole, rtol=1e-6, atol=1e-6)


def test_a_module_that_encodes_nothing_says_so():
    with pytest.raises(NotImplementedError, match=r"AsymmetryMixin needs encode_text\(batch\)"):
        AsymmetryMixin().training_step({"input_ids": torch.zeros(1, 1)}, 0)


if __name__ == "__main__":
    one_rank(int(os.environ["RANK"]), sys.argv[1])
