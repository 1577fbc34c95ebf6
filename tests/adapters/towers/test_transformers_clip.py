"""Dual encoders of transformers, tiny and random, held to the bare models."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

pytest.importorskip("transformers")
import transformers
from PIL import Image

from ascl_plugin import AsymmetryCollator, AsymmetryLoss, RetrievalModel
from ascl_plugin.adapters.towers.transformers_clip import attach
from ascl_plugin.registry import resolve
from ascl_plugin.retrieval.inputs import TextInputs

Regions = resolve("image_encoder", "transformers_clip")
Words = resolve("text_encoder", "transformers_clip")
SIDE, WIDTH, CONTEXT = 32, 16, 12
TEXTS = ["A dog runs", "zebra", "a cat sleeping a cat"]


@pytest.fixture(scope="module", params=["clip", "siglip", "blip", "blip_itm"])
def folder(request, dual_encoder):
    return dual_encoder(request.param)


def bare(folder):
    kind = json.loads(Path(folder, "config.json").read_text())["architectures"][0]
    return getattr(transformers, kind).from_pretrained(folder).eval()


def picture(seed=0, size=(40, 50)):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def close(given, expected):
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- equal to the bare model


@torch.no_grad()
def test_images_are_those_of_the_bare_model(folder):
    model, encoder = bare(folder), Regions(folder)
    pixels = torch.stack([encoder.preprocess(picture(i)) for i in range(2)])
    own = transformers.AutoImageProcessor.from_pretrained(folder)
    close(pixels, own(images=[picture(0), picture(1)], return_tensors="pt")["pixel_values"])
    features = encoder(pixels)
    tokens = model.vision_model(pixel_values=pixels).last_hidden_state
    if isinstance(model, transformers.BlipForImageTextRetrieval):
        expected = model.vision_proj(tokens[:, 0])
    else:
        expected = model.get_image_features(pixel_values=pixels).pooler_output
    close(features.pooled, expected)
    assert features.regions.shape == (2, 16, encoder.region_dim) == (2, 16, WIDTH)
    close(features.regions, tokens[:, -16:])
    assert features.pooled.shape[1] == encoder.pooled_dim


@torch.no_grad()
def test_texts_are_those_of_the_bare_model(folder):
    model, encoder = bare(folder), Words(folder)
    tokens = encoder.tokenize(TEXTS)
    given = dict(tokens)
    if isinstance(model, transformers.SiglipModel):
        # as its documentation calls it: padded to the context, no mask
        own = transformers.AutoTokenizer.from_pretrained(folder)
        ids = own(TEXTS, padding="max_length", max_length=CONTEXT, return_tensors="pt")
        given = {"input_ids": ids["input_ids"]}
        assert tokens["input_ids"].tolist() == given["input_ids"].tolist()
    if isinstance(model, transformers.BlipForImageTextRetrieval):
        words = model.text_encoder(**given).last_hidden_state
        pooled = model.text_proj(words[:, 0])
    else:
        output = model.get_text_features(**given)
        words, pooled = output.last_hidden_state, output.pooler_output
    close(encoder.embed(**tokens), pooled)
    features = encoder(**tokens)
    close(features.words, words)
    assert features.words.shape[-1] == encoder.word_dim
    # [CLS] a dog runs [SEP]; [CLS] [UNK] [SEP]; [CLS] a cat sleep(s) ... [SEP]
    assert features.mask.sum(1).tolist() == tokens["attention_mask"].sum(1).tolist()
    assert features.mask.sum(1).tolist()[:2] == [5, 3]


@torch.no_grad()
def test_a_text_alone_is_what_it_is_beside_a_longer_one(folder):
    encoder = Words(folder)
    one, many = encoder.tokenize(["cat"]), encoder.tokenize(["cat", TEXTS[2]])
    close(encoder.embed(**one), encoder.embed(**many)[:1])
    close(encoder(**one).words[0, :3], encoder(**many).words[0, :3])


# ---------------------------------------------------------------- options


@torch.no_grad()
def test_patches_are_averaged_to_a_grid(clip):
    pixels = torch.randn(2, 3, SIDE, SIDE)
    patches = Regions(clip)(pixels).regions
    cells = Regions(clip, num_regions=4)(pixels).regions
    expected = adaptive_avg_pool2d(patches.transpose(1, 2).reshape(2, WIDTH, 4, 4), 2)
    close(cells, expected.flatten(2).transpose(1, 2))


def test_a_text_longer_than_the_context_is_cut_and_counted(folder):
    """[CLS], ten words, [SEP]: the end token stays, as CLIP's embedding is read there."""
    encoder = Words(folder)
    texts = ["a dog " * 20, "a dog"]
    tokens = encoder.tokenize(texts)
    assert tokens["input_ids"].shape == (2, CONTEXT)
    assert tokens["input_ids"][0, -1] == 3
    assert torch.isfinite(encoder.embed(**tokens)).all()
    assert encoder.count_cut([*texts, ""]) == 1


# ---------------------------------------------------------------- training


def batch_for(model):
    collator = AsymmetryCollator(model.text_encoder.tokenize, positives="mixed", seed=0)
    rows = [
        {"captions": ["a dog runs", "a dog"], "row": 0, "epoch": 0},
        {"captions": ["a cat sleeps", "a cat"], "row": 1, "epoch": 0},
    ]
    pixels = [model.image_encoder.preprocess(picture(i)) for i in range(2)]
    return {**collator(rows), "pixel_values": torch.stack(pixels)}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_step_gives_every_trained_parameter_a_finite_gradient(folder, checkpointing):
    model = attach(
        folder, tune="full", dim=16, fusion={"num_heads": 2}, gradient_checkpointing=checkpointing
    ).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    before = {k: v.clone() for k, v in model.named_parameters()}
    AsymmetryLoss()(**model(batch_for(model))).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    optimizer.step()
    for half in ("image_encoder", "text_encoder"):
        moved = [k for k, v in model.named_parameters() if not torch.equal(v, before[k])]
        assert any(name.startswith(half) for name in moved)


# ---------------------------------------------------------------- attached, before training


def bare_scores(folder, pixels, tokens):
    """Cosines of the bare model's own embeddings."""
    model = bare(folder)
    if isinstance(model, transformers.BlipForImageTextRetrieval):
        image = model.vision_proj(model.vision_model(pixels).last_hidden_state[:, 0])
        states = model.text_encoder(**tokens).last_hidden_state
        text = model.text_proj(states[:, 0])
    else:
        if isinstance(model, transformers.SiglipModel):
            tokens = {"input_ids": tokens["input_ids"]}
        image = model.get_image_features(pixel_values=pixels).pooler_output
        text = model.get_text_features(**tokens).pooler_output
    return torch.nn.functional.normalize(image) @ torch.nn.functional.normalize(text).T


@pytest.mark.parametrize("fusion", [{"num_heads": 2}, {"name": "pooled"}])
@pytest.mark.parametrize("cached", [False, True])
@torch.no_grad()
def test_attached_scores_are_the_towers_own_until_it_trains(folder, fusion, cached, tmp_path):
    """Embeddings of 6, 8 or 16 numbers; also from caches, and after saving and loading."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = attach(folder, fusion=fusion).eval()
    pictures = [{"image_id": str(i), "image": picture(i)} for i in range(3)]
    pixels = torch.stack([model.image_encoder.preprocess(row["image"]) for row in pictures])
    expected = bare_scores(folder, pixels, model.text_encoder.tokenize(TEXTS))
    texts = TextInputs(
        model.text_encoder, tmp_path / "cache" if cached else None, pool=model.pool_words
    )
    texts.prepare(TEXTS, 2, progress=False)
    model.save_pretrained(tmp_path / "saved")
    for one in (model, RetrievalModel.from_pretrained(tmp_path / "saved")):
        found = one.fusion(
            one.encode_images({"pixel_values": pixels}), one.encode_texts(texts(TEXTS))
        )
        tolerance = 1e-3 if cached else 1e-5  # 16 bits in the cache
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_attached_attention_learns_its_weight_from_zero(clip):
    """One step moves u2; with u2 there the attention gets a gradient, too."""
    model = attach(clip, fusion={"num_heads": 2}).train()
    optimizer = torch.optim.SGD(model.fusion.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        AsymmetryLoss()(**model(batch_for(model))).backward()
        attention = model.fusion.image_to_text.key.weight.grad
        assert bool(attention.abs().max() > 0) == (step > 0)
        optimizer.step()
        assert float(model.fusion.u2) != 0


def test_attached_with_random_projections_says_so(clip):
    for options in ({"dim": 16, "fusion": {"num_heads": 2}}, {"fusion": {"name": "late"}}):
        with pytest.warns(UserWarning, match="train before use: .* random weights"):
            attach(clip, **options)
    with pytest.warns(UserWarning, match=r"train before use: local_weight 0\.5"):
        attach(clip, fusion={"num_heads": 2, "local_weight": 0.5})


def trained(module):
    return {name for name, p in module.named_parameters() if p.requires_grad}


def test_partly_unfrozen(clip):
    """The last block and what follows it; a text tower's projection has no part in its words."""
    image = trained(Regions(clip, tune="partial", unfrozen_blocks=1).model)
    assert {n.split(".")[1] for n in image} == {"encoder", "post_layernorm", "weight"}
    assert {n.split(".")[3] for n in image if ".layers." in n} == {"1"}
    text = trained(Words(clip, tune="partial", unfrozen_blocks=1).model)
    assert {n.split(".")[1] for n in text} == {"encoder", "final_layer_norm"}
    assert {n.split(".")[3] for n in text if ".layers." in n} == {"1"}
    assert trained(Regions(clip)) == set()
    with pytest.raises(ValueError, match=r"unfrozen_blocks must be 1 to 2, .*got 3"):
        Regions(clip, tune="partial", unfrozen_blocks=3)


def test_partial_in_every_family(folder):
    for half in (Regions, Words):
        some, everything = (
            trained(half(folder, tune=t, unfrozen_blocks=1)) for t in ("partial", "full")
        )
        assert some < everything
        assert not any("embeddings" in name for name in some)


@pytest.mark.parametrize("tune", ["frozen", "partial"])
def test_saved_and_loaded(clip, tmp_path, tune):
    """Frozen weights are named, not copied."""
    model = attach(clip, tune=tune, num_regions=4, dim=16, fusion={"num_heads": 2}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.01
    model.save_pretrained(tmp_path)
    loaded = RetrievalModel.from_pretrained(tmp_path)
    names = set(model.trained_state())
    assert any(n.startswith("image_encoder") for n in names) == (tune == "partial")
    batch = batch_for(model)
    with torch.no_grad():
        torch.testing.assert_close(loaded(batch), model(batch))
    assert loaded.image_encoder.tune == tune


# ---------------------------------------------------------------- what does not fit


def test_models_that_are_no_dual_encoder(tmp_path):
    config = transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds a BertModel, no dual encoder: .*as CLIP"):
        Words(str(tmp_path))


def test_an_image_tower_without_patches_is_refused(tmp_path):
    """ALIGN sees with an EfficientNet."""
    tower = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    config = transformers.AlignConfig(
        text_config=tower | {"intermediate_size": 8},
        vision_config={"width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 8},
        projection_dim=8,
    )
    transformers.AlignModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no vision_config\.patch_size: no patches"):
        Regions(str(tmp_path))


def test_naflex_is_refused(tmp_path):
    transformers.Siglip2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"NaFlex.*pictures of one size.*siglip2-base-patch16-256"):
        Regions(str(tmp_path))


def test_weights_that_are_not_in_the_checkpoint_are_never_random(clip, tmp_path):
    """A vision tower saved as if it were the whole."""
    bare(clip).vision_model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(Path(clip, "config.json").read_text())
    with pytest.raises(ValueError, match=r"has no weights for 'text_"):
        Words(str(tmp_path))


def test_a_model_that_cannot_be_had_is_named(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("nobody/nothing", str(tmp_path / "none")):
        with pytest.raises(OSError, match=f"model '{name}' is neither a local folder nor.*works"):
            attach(name)
    with pytest.raises(ImportError, match=r"no_such_package.*ascl-plugin\[offline\]"):
        attach("package:no_such_package/model")
