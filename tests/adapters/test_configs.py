"""Configurations on pretrained encoders: each loads and trains two steps on tiny stand-ins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="extra `recipes`")

import torch

from ascl_plugin import RetrievalModel

pytestmark = pytest.mark.recipe

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
FLAGS = [
    "--batch_size=4", "--max_steps=2", "--epochs=1", "--captions_per_epoch=1", "--warmup_steps=0",
    "--eval_every=1", "--save_every=0", "--cpu=True", "--num_threads=1", "--log_with=none",
]  # fmt: skip


@pytest.fixture
def train(run_recipe, tmp_path):
    """Train by a configuration; return the model that was saved and the results on val."""

    def run(name, *flags):
        code, error = run_recipe(
            f"--config={CONFIGS / name}.yaml", *FLAGS, f"--output_dir={tmp_path / 'run'}",
            f"--cache_dir={tmp_path / 'cache'}", *flags,
        )  # fmt: skip
        assert code == 0, error
        results = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert results["best"]["step"] == 2
        return RetrievalModel.from_pretrained(tmp_path / "run" / "best")

    return run


def tiny(clips, name, dim):
    halves = [f"--{side}_encoder.model={name}" for side in ("image", "text")]
    halves += [f"--{side}_encoder.weights={clips[name]}" for side in ("image", "text")]
    scenes = ["--scenes_train=8", "--scenes_val=4", "--scenes_test=4"]
    return [*halves, *scenes, f"--dim={dim}"]


@pytest.mark.parametrize(
    ("name", "tune"), [("coco_clip_finetune", "full"), ("flickr30k_clip_finetune", "lora")]
)
def test_a_clip_is_fine_tuned(train, clips, name, tune):
    """Without a head: what is saved are two towers, and idle projections of regions and words."""
    pytest.importorskip("textblob", reason="extra `words`")
    if tune == "lora":
        pytest.importorskip("peft", reason="extra `lora`")
    both = [f"--{side}_encoder.tune={tune}" for side in ("image", "text")]
    flags = [*both, "--mixed_precision=no", "--scenes_train=24", "--balanced_pairs=2"]
    model = train(name, *tiny(clips, "tiny-vit", 24), *flags)
    assert isinstance(model.pooled_projection, torch.nn.Identity)
    assert model.image_encoder.tune == model.text_encoder.tune == tune


def test_a_projection_of_clip_features(train, clips):
    model = train("coco_clip_linear", *tiny(clips, "tiny-vit", 16))
    assert model.image_encoder.frozen and model.text_encoder.word_dim == 24


@pytest.mark.parametrize("name", ["coco_linear", "flickr30k_linear"])
def test_a_projection_of_region_features_and_bert(train, samples, bert, tmp_path, name):
    for split, count in (("train", 8), ("dev", 3), ("test", 4)):
        images = samples.features([f"{split}{i}" for i in range(count)], [6] * count, boxes=False)
        samples.write_scan(tmp_path / "scan", split, images)
    model = train(
        name, f"--data_root={tmp_path / 'scan'}", f"--region_files={tmp_path / 'scan'}",
        "--pooled_files=none", f"--text_encoder.model={bert}", "--dim=16", "--lexical_minimum=1",
        "--lexical_dim=2",
    )  # fmt: skip
    assert set(model.input_norms) == {"pooled", "text"} and model.lexical.dim == 2
