"""AsymmetryTrainer: accumulation, two processes, the terms of its log, and CLIP's own loss."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

if __name__ != "__main__":
    pytest.importorskip("transformers", reason="extra `recipes`")
    pytest.importorskip("accelerate", reason="extra `recipes`")
import transformers
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.testing import assert_close
from torch.utils.data import SequentialSampler
from transformers import TrainingArguments

sys.path.append(str(Path(__file__).parents[3] / "examples"))
from loss_hf_trainer import tiny_clip
from two_colours import pictures, rows, tokenize

from ascl_plugin import AsymmetryCollator, AsymmetryLoss
from ascl_plugin.adapters.losses.hf_trainer import AsymmetryTrainer

CLOSE = {"rtol": 1e-6, "atol": 1e-6}


class InOrder(AsymmetryTrainer):
    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)


def trainer_of(folder, data, batch, accumulation=1, steps=1, generate=True, **options):
    """A trainer that moves nothing; data it sees, and what is generated, are the same each time."""
    torch.manual_seed(0)
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=batch, learning_rate=0.0,
        gradient_accumulation_steps=accumulation, max_grad_norm=0.0, logging_steps=1,
        per_device_eval_batch_size=batch, report_to="none", save_strategy="no", use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    kinds = ("mixed", "gaussian") if generate else ("none", "none")
    collator = AsymmetryCollator(tokenize, pictures, *kinds)
    data = [{**row, "epoch": 0} for row in data]
    return InOrder(tiny_clip(), arguments, data_collator=collator, train_dataset=data, **options)


def trained(*arguments, **options):
    """Gradients of every step, and what was logged."""
    trainer, found = trainer_of(*arguments, **options), []

    def look(*_):
        found.append({n: p.grad.clone() for n, p in trainer.model.named_parameters()})

    hook = register_optimizer_step_pre_hook(look)
    try:
        trainer.train()
    finally:
        hook.remove()
    return found, [entry for entry in trainer.state.log_history if "loss" in entry]


def test_accumulation_of_1_and_of_4_are_the_same(tmp_path):
    """One step on a batch, and on the same batch four times: the same gradients and log."""
    (once,), (log,) = trained(tmp_path, rows()[:7], 7)
    (four,), (other,) = trained(tmp_path, rows()[:7] * 4, 7, accumulation=4)
    assert_close(four, once, **CLOSE)
    assert max(x.abs().max() for x in once.values()) > 1e-2
    for name in ("loss", "asymmetry_loss", "positive_loss"):
        assert other[name] == pytest.approx(log[name], abs=1e-5)
    assert log["loss"] == pytest.approx(log["asymmetry_loss"] + log["positive_loss"], abs=1e-4)


def test_batches_of_unequal_size_count_by_their_pairs(tmp_path):
    """4, 4 and 2 pairs in a step: (4 g1 + 4 g2 + 2 g3) / 10, each g of a step of its own."""
    single, logs = trained(tmp_path, rows()[:10], 4, steps=3)
    (whole,), (log,) = trained(tmp_path, rows()[:10], 4, accumulation=3)
    mean = {n: sum(w * g[n] for w, g in zip((4, 4, 2), single, strict=True)) / 10 for n in whole}
    assert_close(whole, mean, **CLOSE)
    losses = [entry["loss"] for entry in logs]
    assert log["loss"] == pytest.approx((4 * losses[0] + 4 * losses[1] + 2 * losses[2]) / 10, 1e-4)


def one_rank(rank, out):
    torch.distributed.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    own = trained(out, rows()[:8], 2, accumulation=2)[0][0]
    fixed = trained(out, rows()[:8], 4, loss=AsymmetryLoss(0.1))[0][0]
    torch.save((own, fixed), f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_are_one_with_the_whole_batch(run_ranks, tmp_path):
    """Also under accumulation, and with a loss that leaves the model's logit_scale alone."""
    (own,), _ = trained(tmp_path, rows()[:8], 4, accumulation=2)
    (fixed,), _ = trained(tmp_path, rows()[:8], 8, loss=AsymmetryLoss(0.1))
    assert own["logit_scale"] != 0 and fixed["logit_scale"] == 0
    for found in run_ranks(__file__, tmp_path):
        assert_close(found[0], own, **CLOSE)
        assert_close(found[1], fixed, **CLOSE)


def test_without_generated_texts_it_is_the_loss_of_clip(tmp_path):
    trainer = trainer_of(tmp_path, rows(), 8, generate=False)
    batch = trainer.data_collator(trainer.train_dataset[:8])
    tokens = {k: batch[k] for k in ("input_ids", "attention_mask", "pixel_values")}
    theirs = trainer.model(**tokens, return_loss=True).loss
    assert_close(trainer.compute_loss(trainer.model, batch), theirs)
    found = trainer.evaluate(trainer.train_dataset[:8])
    assert found["eval_loss"] == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_other_dual_encoders_and_the_collator_of_their_own_files(dual_encoder, tmp_path, kind):
    """Every parameter gets a gradient; captions and richer texts are padded to one length."""
    folder = dual_encoder(kind)
    collator = AsymmetryCollator(
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        images=transformers.AutoImageProcessor.from_pretrained(folder),
        positives="concatenate",
        negatives="gaussian",
    )
    pictures = [Image.new("RGB", (40, 50), colour) for colour in ("red", "blue")]
    data = [{"image": p, "captions": ["a dog", "a cat sleeps"]} for p in pictures]
    model = transformers.AutoModel.from_pretrained(folder)
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    trainer = AsymmetryTrainer(model, arguments, data_collator=collator, train_dataset=data)
    trainer.compute_loss(trainer.model, collator(data)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_texts_that_cannot_be_padded_are_refused(tmp_path):
    trainer = trainer_of(tmp_path, rows(), 8)
    batch = trainer.data_collator(rows()[:8])
    bare = {k: v for k, v in batch.items() if "attention_mask" not in k}
    with pytest.raises(ValueError, match=r"input_ids of captions .* padding='max_length'"):
        trainer.compute_loss(trainer.model, bare)


if __name__ == "__main__":
    one_rank(int(os.environ["RANK"]), sys.argv[1])
