"""Encoding in parts, twice: gradients against those of the whole batch at once.

With several processes: `in parts` of test_processes.py.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

pytest.importorskip("accelerate", reason="extra `recipes`")
import processes_ranks as program

from ascl_plugin import AsymmetryLoss, registry
from ascl_plugin.features import TextFeatures, concatenate
from ascl_plugin.retrieval.encoders import WordTransformer
from ascl_plugin.training.gradient_cache import CachedEncoding

HEADS = {"num_heads": 2}


class Trimmed(WordTransformer):
    """Cuts padding away, so that parts of a batch differ in length; and has dropout."""

    def __init__(self, dropout=0.0, **options):
        super().__init__(**options)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids, attention_mask):
        longest = int(attention_mask.sum(1).max())
        texts = super().forward(input_ids[:, :longest], attention_mask[:, :longest])
        return TextFeatures(self.dropout(texts.words), texts.mask)


@pytest.fixture
def trimmed(monkeypatch):
    monkeypatch.setattr(
        registry, "_registered", {**registry._registered, ("text_encoder", "trimmed"): Trimmed}
    )


def same(found, expected, atol):
    """Losses, scores and gradients, the latter to `atol` of the largest of all."""
    largest = max(g.abs().max().item() for g in expected["gradients"].values())
    assert 0.01 < largest < 100
    for kind, tolerance in (("values", atol * 10), ("gradients", atol * largest)):
        assert found[kind].keys() == expected[kind].keys()
        for name, value in expected[kind].items():
            torch.testing.assert_close(
                found[kind][name], value, rtol=0, atol=tolerance,
                msg=lambda m, name=name: f"{name}: {m}",
            )  # fmt: skip


def check(size, atol=1e-12, dtype=torch.float64, fusion=HEADS, encoder="transformer", **options):
    """Not on the mixture: a shuffled caption ties with its caption, and rounding decides a tie."""
    model = program.make(fusion, dtype, name=encoder)
    found, expected = (
        program.gradients(model=model, chunk=chunk, **options) for chunk in (size, 0)
    )
    same(found, expected, atol)


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 99])
@pytest.mark.parametrize("encoder", ["transformer", "trimmed"])
def test_gradients_are_those_of_the_batch_at_once(trimmed, size, encoder):
    """Noise negatives and generated positives; the last part shorter, parts of other lengths."""
    check(size, encoder=encoder)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": torch.float32, "atol": 1e-6},
        {"fusion": {**HEADS, "attention": "parameter-free", "local_weight": 1.0}},
        {"fusion": {"name": "pooled"}, "negatives": "token_cutoff"},
        {"align": True},
        {"of": "cache"},  # outputs of frozen encoders
        {"of": "inserted"},  # negatives that are texts
        {"batches": 2},  # gradients of a second batch are added
    ],
    ids=str,
)
def test_whatever_is_scored(options):
    """What a scorer leaves alone, as the pooled feature here, keeps no gradient at all."""
    check(2, **options)


def test_dropout_drops_the_same_in_both_passes(trimmed):
    """Against the parts encoded once, with all graphs kept, from the same seeds."""
    model = program.make(HEADS, torch.float64, name="trimmed", dropout=0.4)
    found = program.gradients(model=model, chunk=3)

    model.zero_grad()
    batch = program.own_part(program.whole_batch(model, "pixels", 0))
    seeds = torch.randint(2**62, (3,)).tolist()
    parts = []
    for start, seed in zip((0, 3, 6), seeds, strict=True):
        torch.manual_seed(seed)
        parts.append(model.encode({k: v[start : start + 3] for k, v in batch.items()}))
    images = concatenate([part[0] for part in parts])
    texts = {name: concatenate([part[1][name] for part in parts]) for name in parts[0][1]}
    blocks = model.score_blocks(images, texts, batch, "gaussian")
    loss = AsymmetryLoss(0.1)(**blocks)
    loss.backward()
    values = {f"{k} 0": v.detach() for k, v in (blocks | {"loss": loss}).items()}
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    same(found, {"values": values, "gradients": gradients}, 1e-12)
    another = program.gradients(model=model, chunk=2)
    assert another["values"]["loss 0"] != found["values"]["loss 0"]


def test_nothing_is_kept_for_a_backward_pass_but_features():
    model = program.make(HEADS)
    batch = program.whole_batch(model, "pixels", 0)
    kept = []

    def keep(x):
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model.encode(batch)
        whole = sum(kept)
        kept.clear()
        CachedEncoding(model, batch, 2, nullcontext)
    assert whole > 10_000 and not kept
