"""RetrievalModel: score blocks, saving and loading, weights that do not fit."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

pytest.importorskip("huggingface_hub", reason="extra `recipes`")
from safetensors.torch import load_file, save_file

from ascl_plugin import registry
from ascl_plugin.asymmetry import generate_negatives
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import LateInteraction
from ascl_plugin.losses import AsymmetryLoss
from ascl_plugin.retrieval.audit import audit
from ascl_plugin.retrieval.encoders import GridEncoder
from ascl_plugin.retrieval.model import RetrievalModel, parameter_counts
from ascl_plugin.retrieval.raw_features import to_inputs
from ascl_plugin.scoring.matrix import score_matrix

GRID = {"name": "grid", "width": 8, "grid": 2}
WORDS = {"name": "transformer", "vocabulary": list("abcde"), "width": 8}


def make(image_encoder=GRID, seed=0, **options):
    torch.manual_seed(seed)
    return RetrievalModel(image_encoder, WORDS, {"num_heads": 2}, **{"dim": 8} | options)


def batch_of(model, seeds=True, positives=True):
    torch.manual_seed(1)
    batch = {"pixel_values": torch.rand(3, 3, 32, 32)}
    batch |= model.text_encoder.tokenize(["a b c", "d", "e a"])
    if positives:
        tokens = model.text_encoder.tokenize(["a b", "d . c e", "e"])
        batch |= {f"positive_{k}": v for k, v in tokens.items()}
    if seeds:
        batch["noise_seed"] = torch.tensor([1, 2, 3])
        if positives:
            batch["positive_noise_seed"] = torch.tensor([4, 5, 6])
    return batch


def test_forward_gives_the_blocks_that_the_batch_asks_for():
    model = make()
    whole = model(batch_of(model))
    assert {k: tuple(v.shape) for k, v in whole.items()} == dict.fromkeys(
        ("sim", "negative_sim", "positive_sim", "positive_negative_sim"), (3, 3)
    )
    for seeds, positives, names in (
        (False, True, {"sim", "positive_sim"}),
        (True, False, {"sim", "negative_sim"}),
        (False, False, {"sim"}),
    ):
        blocks = model(batch_of(model, seeds, positives))
        assert set(blocks) == names
        for name in names:
            torch.testing.assert_close(blocks[name], whole[name])


def test_each_block_is_what_its_parts_say():
    """Images against captions, captions with their own noise, positives, positives with theirs."""
    model = make()
    batch = batch_of(model)
    blocks = model(batch, negatives="gaussian", strength=0.7)
    images = model.encode_images(batch)
    for prefix, names in (
        ("", ("sim", "negative_sim")),
        ("positive_", ("positive_sim", "positive_negative_sim")),
    ):
        texts = model.encode_texts(batch, prefix)
        noisy = generate_negatives(texts, batch[f"{prefix}noise_seed"], "gaussian", 0.7)
        for name, features in zip(names, (texts, noisy), strict=True):
            torch.testing.assert_close(blocks[name], model.fusion(images, features))
    assert (blocks["sim"] - blocks["negative_sim"]).abs().min() > 0


def test_negatives_that_are_texts_are_scored_in_place_of_noise():
    model = make()
    batch = batch_of(model)
    for prefix, texts in (("", ["a", "b c", "d"]), ("positive_", ["e", "a b", "c c"])):
        tokens = model.text_encoder.tokenize(texts)
        batch |= {f"{prefix}negative_{k}": v for k, v in tokens.items()}
    blocks = model(batch, "insert")
    images = model.encode_images(batch)
    for prefix in ("negative_", "positive_negative_"):
        texts = model.encode_texts(batch, prefix)
        torch.testing.assert_close(blocks[f"{prefix}sim"], model.fusion(images, texts))


def test_aligned_blocks_are_of_late_interaction():
    model = make(align_local_weight=0.5)
    batch = batch_of(model)
    blocks = model(batch, align=True)
    images = model.encode_images(batch)
    for name, prefix in (("sim", ""), ("positive_sim", "positive_")):
        texts = model.encode_texts(batch, prefix)
        torch.testing.assert_close(blocks[name], LateInteraction(0.5)(images, texts))


def test_every_parameter_learns_from_the_loss():
    model = make()
    AsymmetryLoss()(**model(batch_of(model))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("norm", ["layer", "l2", "none"])
def test_feature_norm(norm):
    """Layer: mean 0, mean square 1. L2: sum of squares 1. None: as projected."""
    model = make(feature_norm=norm)
    batch = batch_of(model)
    images, texts = model.encode_images(batch), model.encode_texts(batch)
    for x in (images.regions, images.pooled, texts.words[texts.mask]):
        if norm == "layer":
            assert x.mean(-1).abs().max() < 1e-5
            torch.testing.assert_close(
                x.square().mean(-1), torch.ones(x.shape[:-1]), atol=1e-2, rtol=0
            )
        if norm == "l2":
            torch.testing.assert_close(x.square().sum(-1), torch.ones(x.shape[:-1]))
    if norm == "none":
        raw = model.image_encoder(batch["pixel_values"]).regions
        torch.testing.assert_close(images.regions, model.region_projection(raw))
    with pytest.raises(ValueError, match="feature_norm must be one of layer, l2, none, got 'ln'"):
        make(feature_norm="ln")


def test_features_from_a_cache_are_taken_as_the_encoders_own():
    model = make().eval()
    batch = batch_of(model, seeds=False, positives=False)
    raw = model.image_encoder(batch["pixel_values"])
    texts = model.text_encoder(batch["input_ids"], batch["attention_mask"])
    cached = {"regions": raw.regions, "pooled": raw.pooled, "words": texts.words}
    cached["word_mask"] = texts.mask
    torch.testing.assert_close(model(cached)["sim"], model(batch)["sim"])


def test_saved_and_loaded_it_scores_the_same(tmp_path, capsys):
    model = make(dim=12, feature_norm="l2").eval()
    model.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"config.json", "model.safetensors"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dim"] == 12 and config["image_encoder"] == GRID
    torch.manual_seed(99)
    loaded = RetrievalModel.from_pretrained(str(tmp_path))
    assert not capsys.readouterr().out
    assert not loaded.training and loaded.text_encoder.ids == model.text_encoder.ids
    batch = batch_of(model)
    for name, block in model(batch).items():
        assert torch.equal(loaded(batch)[name], block)


def test_the_global_random_state_is_left_as_found(tmp_path):
    """By loading a model, whose layers are made first, and by everything that judges one."""
    make().save_pretrained(tmp_path)
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    model = RetrievalModel.from_pretrained(tmp_path)
    images = ImageFeatures(torch.ones(3, 2, 8), None, torch.eye(3, 8))
    texts = TextFeatures(torch.eye(3, 8)[:, None])
    score_matrix(model, images, texts)
    audit(model.fusion, images, texts)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())


class FrozenGrid(GridEncoder):
    """A frozen encoder whose seed says its weights, as a name says those of a pretrained one."""

    frozen = True

    def __init__(self, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            super().__init__(8, 2)
        self.requires_grad_(False)


def test_weights_of_a_frozen_encoder_are_not_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    registry.register("image_encoder", "frozen")(FrozenGrid)
    model = make({"name": "frozen", "seed": 3})
    assert parameter_counts(model)[1] == sum(p.numel() for p in model.image_encoder.parameters())
    model.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "region_projection.weight" in names
    assert any(name.startswith("text_encoder.") for name in names)
    assert not any(name.startswith("image_encoder.") for name in names)
    loaded = RetrievalModel.from_pretrained(str(tmp_path))
    batch = batch_of(model)
    assert torch.equal(loaded(batch)["sim"], model(batch)["sim"])
    AsymmetryLoss()(**model(batch)).backward()
    assert all(p.grad is None for p in model.image_encoder.parameters())


def test_weights_that_do_not_fit_are_named(tmp_path):
    model = make()
    state = model.trained_state()
    before = {k: v.clone() for k, v in state.items()}
    lacking = {k: v for k, v in state.items() if k != "fusion.gate.bias"}
    with pytest.raises(ValueError, match=r"the file lacks 'fusion.gate.bias'"):
        model.load_trained_state(lacking)
    with pytest.raises(ValueError, match=r"the model does not know 'head.weight'"):
        model.load_trained_state(state | {"head.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"'fusion.gate.bias' is \(3,\) in the file and \(8,\)"):
        model.load_trained_state(state | {"fusion.gate.bias": torch.zeros(3)})
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.save_pretrained(tmp_path)
    save_file(lacking, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"the file lacks 'fusion.gate.bias'"):
        RetrievalModel.from_pretrained(str(tmp_path))


def _config(folder, **changes):
    """A saved model whose config.json says something else."""
    make().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize("kind", ["image_encoder", "text_encoder", "fusion"])
def test_code_that_a_saved_model_names_is_not_imported(tmp_path, monkeypatch, kind):
    (tmp_path / "somebodys_code.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = _config(tmp_path / "model", **{kind: {"name": "somebodys_code:Thing"}})
    with pytest.raises(ValueError, match=rf"model: config.json: {kind} 'somebodys_code:Thing'"):
        RetrievalModel.from_pretrained(folder)
    with pytest.raises(SystemExit, match="it ran"):
        RetrievalModel.from_pretrained(folder, allow_import=True)


def test_code_that_is_registered_is_not_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    registry.register("image_encoder", "my:grid")(registry.resolve("image_encoder", "grid"))
    folder = _config(tmp_path, image_encoder={**GRID, "name": "my:grid"})
    assert RetrievalModel.from_pretrained(folder).image_encoder.region_dim > 0


def test_a_damaged_model_is_named(tmp_path):
    folder = _config(tmp_path / "a", image_encoder=[1])
    with pytest.raises(ValueError, match=r"a: config.json: image_encoder is \[1\]"):
        RetrievalModel.from_pretrained(folder)
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"/a: "):
        RetrievalModel.from_pretrained(folder)
    folder = _config(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=r"b: model.safetensors is damaged"):
        RetrievalModel.from_pretrained(folder)


def test_a_component_that_there_is_not_is_named():
    with pytest.raises(KeyError, match=r"no image_encoder named 'gird'.*did you mean 'grid'"):
        RetrievalModel({"name": "gird"}, WORDS)
    with pytest.raises(TypeError, match=r"text_encoder 'transformer'.*'depth'"):
        RetrievalModel(GRID, {**WORDS, "depth": 2})
    with pytest.raises(ValueError, match=r"text_encoder: expected .*'name'.* got \{'width': 8\}"):
        RetrievalModel(GRID, {"width": 8})


@pytest.mark.parametrize("fusion", ["pooled", "late", "cross_modal"])
def test_the_joint_width_is_the_models(fusion):
    """It reaches a fusion with weights, and is no option of those without."""
    model = RetrievalModel(GRID, WORDS, {"name": fusion}, dim=16)
    assert model.word_projection.out_features == 16
    images = model.encode_images(batch_of(model))
    scores = model.fusion(images, TextFeatures(torch.randn(2, 3, 16)))
    assert scores.shape == (3, 2)


def test_without_projections_scores_are_cosines_of_what_encoders_give():
    """Mean words of width 8 against the grid's mean cell, of width 8 too."""
    wholes = {"fusion": {"name": "pooled", "image": "pooled"}, "text_pool": "mean", "dim": 8}
    model = RetrievalModel(GRID, WORDS, **wholes, projection="none", feature_norm="none").eval()
    batch = batch_of(model, seeds=False, positives=False)
    words = model.text_encoder(batch["input_ids"], batch["attention_mask"])
    images = model.image_encoder(batch["pixel_values"]).pooled
    mean = (words.words * words.mask[..., None]).sum(1) / words.mask.sum(1, keepdim=True)
    expected = torch.cosine_similarity(images[:, None], mean[None], dim=2)
    torch.testing.assert_close(model(batch)["sim"], expected)
    with pytest.raises(ValueError, match="and dim of one width, got 8, 8 and 4"):
        RetrievalModel(GRID, WORDS, **wholes | {"dim": 4}, projection="none")
    with pytest.raises(ValueError, match="projection none is for models of wholes"):
        make(projection="none")


def test_to_inputs_moves_tensors_but_not_seeds():
    moved = to_inputs(
        {"words": torch.zeros(1), "row": torch.zeros(1), "positive_noise_seed": torch.zeros(1)},
        "meta",
    )
    assert {k: v.device.type for k, v in moved.items()} == {
        "words": "meta", "row": "cpu", "positive_noise_seed": "cpu",
    }  # fmt: skip
