"""Encoding in parts, twice: gradients against those of the whole batch at once."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
from torch import nn

pytest.importorskip("huggingface_hub", reason="extra `recipes`")
from ascl_plugin import AsymmetryLoss, registry
from ascl_plugin.features import TextFeatures, concatenate
from ascl_plugin.retrieval.encoders import WordTransformer
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training.gradient_cache import CachedEncoding, average_gradients

CAPTIONS = ["a", "the b", "a b c d e", "c a", "d d", "e a b", "b"]
POSITIVES = ["b", "a c b", "d", "c a e e", "a d", "e", "b b b b b b"]
VOCABULARY = list("abcde")


class Trimmed(WordTransformer):
    """Cuts padding away, so that parts of a batch differ in length; and has dropout."""

    def __init__(self, dropout=0.0, **options):
        super().__init__(**options)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids, attention_mask):
        longest = int(attention_mask.sum(1).max())
        texts = super().forward(input_ids[:, :longest], attention_mask[:, :longest])
        return TextFeatures(self.dropout(texts.words), texts.mask)


@pytest.fixture(autouse=True)
def trimmed(monkeypatch):
    monkeypatch.setattr(
        registry, "_registered", {**registry._registered, ("text_encoder", "trimmed"): Trimmed}
    )


def make(fusion=None, dtype=torch.float64, encoder="transformer", **options):
    torch.manual_seed(0)
    words = {"name": encoder, "vocabulary": VOCABULARY, "width": 8, **options}
    fusion = {"num_heads": 2} if fusion is None else fusion
    return RetrievalModel({"name": "grid", "width": 8, "grid": 2}, words, fusion, dim=8).to(dtype)


def batch_of(model, pairs=7, dtype=torch.float64):
    """Pixels and token ids, or what a cache holds of frozen encoders, and noise seeds."""
    torch.manual_seed(1)
    batch = model.text_encoder.tokenize(CAPTIONS[:pairs])
    positives = model.text_encoder.tokenize(POSITIVES[:pairs])
    return {
        **batch,
        **{f"positive_{k}": v for k, v in positives.items()},
        "pixel_values": torch.rand(pairs, 3, 32, 32, dtype=dtype) * 2 - 1,
        "noise_seed": torch.arange(pairs) + 3,
        "positive_noise_seed": torch.arange(pairs) + 50,
        "row": torch.arange(pairs),
    }


def from_cache(pairs=7, dtype=torch.float64):
    torch.manual_seed(2)
    words = {"words": torch.randn(pairs, 5, 8, dtype=dtype)}
    words["word_mask"] = torch.arange(5) < torch.arange(1, pairs + 1)[:, None]
    return {
        "regions": torch.randn(pairs, 4, 8, dtype=dtype),
        "region_mask": torch.arange(4) < torch.arange(1, pairs + 1)[:, None],
        "pooled": torch.randn(pairs, 8, dtype=dtype),
        **words,
        **{f"positive_{k}": v.flip(0) for k, v in words.items()},
        "noise_seed": torch.arange(pairs),
    }


def inserted(model):
    batch = batch_of(model)
    texts = model.text_encoder.tokenize([f"{caption} e d" for caption in CAPTIONS])
    del batch["noise_seed"], batch["positive_noise_seed"]
    return batch | {f"negative_{k}": v for k, v in texts.items()}


def gradients(model):
    return {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}


def at_once(model, batch, negatives="gaussian", **options):
    """Not the mixture: a shuffled caption ties with its caption, and rounding decides a tie."""
    model.zero_grad()
    loss = AsymmetryLoss(0.1)(**model(batch, negatives, **options))
    loss.backward()
    return loss.detach(), gradients(model)


def in_parts(model, batch, size, negatives="gaussian", **options):
    model.zero_grad()
    cached = CachedEncoding(model, batch, size, nullcontext)
    blocks = model.score(cached.images, cached.texts, batch, negatives, **options)
    loss = AsymmetryLoss(0.1)(**blocks)
    loss.backward()
    cached.carry_on()
    return loss.detach(), gradients(model)


def same(found, expected, atol):
    """Losses and gradients, the latter to `atol` of the largest of all."""
    assert found[1].keys() == expected[1].keys()
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=atol * 10)
    largest = max(g.abs().max().item() for g in expected[1].values())
    assert 0.01 < largest < 100
    for name, gradient in expected[1].items():
        torch.testing.assert_close(
            found[1][name], gradient, rtol=0, atol=atol * largest,
            msg=lambda m, name=name: f"{name}: {m}",
        )  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 99])
@pytest.mark.parametrize("encoder", ["transformer", "trimmed"])
def test_gradients_are_those_of_the_batch_at_once(size, encoder):
    """Noise negatives and generated positives; the last part shorter, parts of other lengths."""
    model = make(encoder=encoder)
    batch = batch_of(model)
    same(in_parts(model, batch, size), at_once(model, batch), 1e-12)


def test_in_fp32_to_1e_6():
    model = make(dtype=torch.float32)
    batch = batch_of(model, dtype=torch.float32)
    same(in_parts(model, batch, 3), at_once(model, batch), 1e-6)


@pytest.mark.parametrize(
    ("fusion", "options"),
    [
        ({"num_heads": 2, "attention": "parameter-free", "local_weight": 1.0}, {}),
        ({"name": "pooled"}, {"negatives": "token_cutoff"}),
        (None, {"align": True}),
    ],
)
def test_whatever_scores(fusion, options):
    """What a scorer leaves alone, as the pooled feature here, keeps no gradient at all."""
    model = make(fusion)
    batch = batch_of(model)
    same(in_parts(model, batch, 2, **options), at_once(model, batch, **options), 1e-12)


def test_outputs_of_frozen_encoders_and_negatives_that_are_texts():
    model = make()
    same(in_parts(model, from_cache(), 3), at_once(model, from_cache()), 1e-12)
    same(in_parts(model, inserted(model), 3), at_once(model, inserted(model)), 1e-12)


def test_batches_add_up():
    """Gradient accumulation: a second batch adds to what the first left."""
    model = make()
    first, second = batch_of(model), batch_of(model, 4)
    expected = [at_once(model, batch)[1] for batch in (first, second)]
    in_parts(model, first, 2)
    cached = CachedEncoding(model, second, 3, nullcontext)
    blocks = model.score(cached.images, cached.texts, second, "gaussian")
    AsymmetryLoss(0.1)(**blocks).backward()
    cached.carry_on()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[0][name] + expected[1][name])


def test_dropout_drops_the_same_in_both_passes():
    """Against the parts encoded once, with all graphs kept, from the same seeds."""
    model = make(encoder="trimmed", dropout=0.4).train()
    batch = batch_of(model)
    torch.manual_seed(5)
    found = in_parts(model, batch, 3)

    model.zero_grad()
    torch.manual_seed(5)
    seeds = torch.randint(2**62, (3,)).tolist()
    parts = []
    for start, seed in zip((0, 3, 6), seeds, strict=True):
        torch.manual_seed(seed)
        parts.append(model.encode({k: v[start : start + 3] for k, v in batch.items()}))
    images = concatenate([part[0] for part in parts])
    texts = {name: concatenate([part[1][name] for part in parts]) for name in parts[0][1]}
    loss = AsymmetryLoss(0.1)(**model.score(images, texts, batch, "gaussian"))
    loss.backward()
    same(found, (loss.detach(), gradients(model)), 1e-12)
    assert in_parts(model, batch, 3)[0] != found[0]  # another draw


def test_nothing_is_kept_for_a_backward_pass_but_features():
    model = make()
    kept = []

    def keep(x):
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model.encode(batch_of(model))
        whole = sum(kept)
        kept.clear()
        CachedEncoding(model, batch_of(model), 2, nullcontext)
    assert whole > 10_000 and not kept


def one_process(rank, out):
    """Two batches of which each process has a part, gradients added up; under DDP's hooks."""
    dist.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    model = make()
    wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    batch = {k: v[3 * rank :][:3] for k, v in batch_of(model, 6).items()}
    for _ in range(2):
        cached = CachedEncoding(wrapped.module, batch, 2, nullcontext)
        blocks = model.score(cached.images, cached.texts, batch, "gaussian")
        loss = AsymmetryLoss(0.1)(**blocks)
        loss.backward()
        cached.carry_on()
    average_gradients(model)
    torch.save({"loss": loss.detach(), **gradients(model)}, f"{out}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path, run_ranks):
    model = make()
    loss, expected = at_once(model, batch_of(model, 6))
    for found in run_ranks(__file__, tmp_path):
        twice = {name: gradient / 2 for name, gradient in found.items() if name != "loss"}
        same((found["loss"], twice), (loss, expected), 1e-10)


if __name__ == "__main__":
    one_process(int(os.environ["RANK"]), sys.argv[1])
