"""CLIP_benchmark's own loading and evaluation of our models."""

from __future__ import annotations

import itertools

import pytest
import torch

pytest.importorskip("clip_benchmark", reason="extra `clip-benchmark`")
from clip_benchmark.metrics import zeroshot_retrieval
from clip_benchmark.models import load_clip

from ascl_plugin import RetrievalModel
from ascl_plugin.adapters.leaderboards import clip_benchmark
from ascl_plugin.data import scenes
from ascl_plugin.data.images import load_image
from ascl_plugin.data.rows import caption_to_image
from ascl_plugin.metrics.recall import retrieval_metrics


def test_its_recalls_are_ours(tmp_path):
    """Of a model that scores by whole images and texts, on 12 scenes of five captions each."""
    torch.manual_seed(0)
    model = RetrievalModel(
        image_encoder={"name": "grid", "width": 8},
        text_encoder={
            "name": "transformer",
            "width": 8,
            "vocabulary": ["a", "red", "small", "car"],
        },
        fusion={"name": "pooled"},
        dim=8,
    )
    model.save_pretrained(tmp_path)
    clip_benchmark.register()
    towers, transform, tokenizer = load_clip("ascl", str(tmp_path), "", None, "cpu")
    rows = scenes.make("test", 12)
    pictures = [load_image(row["image"], row["image_id"]) for row in rows]
    loader = [
        (torch.stack([transform(pictures[i]) for i in some]), [rows[i]["captions"] for i in some])
        for some in (range(8), range(8, 12))
    ]
    theirs = zeroshot_retrieval.evaluate(towers, loader, tokenizer, "cpu", False, [1, 5, 10])
    texts, owners = caption_to_image(rows)
    ours = retrieval_metrics(
        RetrievalModel.from_pretrained(tmp_path).score(pictures, texts), owners
    )
    for (name, way), k in itertools.product((("text", "i2t"), ("image", "t2i")), (1, 5, 10)):
        found = 100 * theirs[f"{name}_retrieval_recall@{k}"]
        assert found == pytest.approx(ours[f"{way}_r{k}"], abs=1e-4)
    assert 0 < ours["t2i_r5"] < 100
