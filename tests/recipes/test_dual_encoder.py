"""A recipe on a CLIP of transformers, fine-tuned at a rate of its own."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate", reason="extra `recipes`")
import transformers
from safetensors.torch import load_file

from ascl_plugin import RetrievalModel

pytestmark = pytest.mark.recipe
RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder with a CLIP of one block a tower that knows a few words of the scenes."""
    folder = tmp_path_factory.mktemp("clip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "circle", "square"]
    tower = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }  # fmt: skip
    text = {"vocab_size": len(words), "max_position_embeddings": 32, "eos_token_id": 3}
    vision = {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=tower | text, vision_config=tower | vision)
    transformers.CLIPModel(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(
        folder
    )
    vocabulary = {word: number for number, word in enumerate(words)}
    transformers.BertTokenizerFast(vocab=vocabulary).save_pretrained(folder)
    return folder


def run(clip, out, *flags):
    """The recipe on a few scenes with both encoders of the CLIP, in 2 steps; its exit status."""
    return runpy.run_path(str(RECIPES / "ascl_coco.py"))["main"](
        [
            "--image_encoder=transformers_clip", "--text_encoder=transformers_clip",
            f"--image_encoder.model={clip}", f"--text_encoder.model={clip}",
            "--image_encoder.num_regions=4", "--dim=16",
            "--cpu=True", "--log_with=none", "--scenes_train=8", "--scenes_val=4",
            "--scenes_test=4", "--epochs=1", "--align_epochs=0", "--batch_size=4",
            "--captions_per_epoch=1", "--warmup_steps=0", "--schedule=constant",
            f"--output_dir={out}", *flags,
        ]
    )  # fmt: skip


def test_fine_tuned_at_its_own_rate_with_cut_captions_reported(clip, tmp_path, capsys):
    """Adam moves a weight by its rate a step: after 2 steps encoders by 2e-5 at most."""
    status = run(
        clip, tmp_path / "run", "--image_encoder.tune=full", "--text_encoder.tune=full",
        "--learning_rate=1e-3", "--encoder_learning_rate=1e-5", "--text_encoder.max_words=6",
    )  # fmt: skip
    assert status == 0
    assert " of 80 captions are longer than max_words and cut" in capsys.readouterr().out
    state = load_file(tmp_path / "run" / "best" / "model.safetensors")
    bare = transformers.CLIPModel.from_pretrained(clip).state_dict()
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    moved = (state[f"image_encoder.model.{name}"] - bare[name]).abs().max()
    assert 1e-5 < moved < 2.1e-5
    loaded = RetrievalModel.from_pretrained(str(tmp_path / "run" / "best"))
    assert loaded.image_encoder.tune == "full"
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]


def test_frozen_with_every_text_of_the_evaluation_cached(clip, tmp_path):
    """Scenes are evaluated on variants of captions, too."""
    assert run(clip, tmp_path / "run", f"--cache_dir={tmp_path / 'cache'}") == 0
    test = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    assert 0 <= test["asymmetry"]["asym1_richer"] <= 100
