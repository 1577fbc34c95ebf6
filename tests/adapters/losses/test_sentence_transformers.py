"""AsymmetryRankingLoss beside sentence-transformers' own loss, cached, and in its trainer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("sentence_transformers", reason="extra `sentence-transformers`")
pytest.importorskip("datasets", reason="extra `recipes`")
from datasets import Dataset
from PIL import Image
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Transformer
from torch.testing import assert_close

sys.path.append(str(Path(__file__).parents[3] / "examples"))
from loss_sentence_transformers import tiny_model
from two_colours import rows

from ascl_plugin import AsymmetryLoss
from ascl_plugin.adapters.losses.sentence_transformers import (
    AsymmetryRankingLoss,
    CachedAsymmetryRankingLoss,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    return tiny_model(str(tmp_path_factory.mktemp("model")))


def columns(model, count):
    """Tokens of so many columns of eight texts each."""
    captions = [row["captions"] for row in rows()[:8]]
    columns = [[c[1] for c in captions], [c[0] for c in captions], [c[2] for c in captions]]
    return [model.preprocess(texts) for texts in columns[:count]]


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("count", [2, 3])
def test_without_generated_texts_it_is_their_loss(model, count):
    """Pairs, and pairs with hard negatives, which no alpha rule drops there; gradients too."""
    theirs = MultipleNegativesRankingLoss(
        model, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )(columns(model, count), None)
    keep = None if count == 2 else AsymmetryLoss(reduction="clip", violations="keep")
    (ours,) = AsymmetryRankingLoss(model, keep)(columns(model, count)).values()
    assert_close(ours, theirs)
    assert_close(gradients(model, ours), gradients(model, theirs))


def test_the_cached_form_is_the_plain_one(model):
    """Mini-batches of 3 of 8 pairs: the same loss, the same gradients."""
    terms = AsymmetryRankingLoss(model, further_positives=1)(columns(model, 3))
    assert list(terms) == ["asymmetry_loss", "positive_loss"]
    plain = sum(terms.values())
    cached = CachedAsymmetryRankingLoss(model, 3, further_positives=1)(columns(model, 3))
    assert_close(cached.detach(), plain.detach())
    assert_close(gradients(model, cached), gradients(model, plain))


def trained(model, loss, table, folder):
    arguments = SentenceTransformerTrainingArguments(
        str(folder), max_steps=2, per_device_train_batch_size=4, learning_rate=1e-3,
        logging_steps=1, report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(model, arguments, train_dataset=table, loss=loss)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_its_trainer_trains_a_multimodal_model_and_logs_the_terms(clip, tmp_path):
    """Pictures, texts, richer texts; further columns are negatives."""
    model = SentenceTransformer(modules=[Transformer(clip)], device="cpu")
    colours = ["red", "green", "blue", "white"] * 2
    table = Dataset.from_dict(
        {
            "picture": [Image.new("RGB", (40, 40), colour) for colour in colours],
            "text": ["a dog runs", "a cat", "two cats", "a cat sleeps"] * 2,
            "richer": ["a dog runs a cat", "a cat sleeps", "two cats", "a cat sleeps"] * 2,
            "negative": ["two cats runs"] * 8,
        }
    )
    before = [p.clone() for p in model.parameters()]
    loss = CachedAsymmetryRankingLoss(model, 2, further_positives=1, gather_across_devices=True)
    logs = trained(model, loss, table, tmp_path)
    assert all(torch.isfinite(torch.tensor(entry["grad_norm"])) for entry in logs)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    plain = AsymmetryRankingLoss(model, further_positives=1, noise="gaussian")
    for entry in trained(model, plain, table, tmp_path):
        total = entry["asymmetry_loss"] + entry["positive_loss"]
        assert entry["loss"] == pytest.approx(total, abs=1e-3)


def test_columns_that_are_not_there_are_named(model):
    with pytest.raises(ValueError, match="need 3 columns at least, got 2"):
        AsymmetryRankingLoss(model, further_positives=1)(columns(model, 2))
    with pytest.raises(ValueError, match="further_positives must be at least 0, got -1"):
        AsymmetryRankingLoss(model, further_positives=-1)
