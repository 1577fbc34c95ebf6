"""Tiny open_clip models of every kind of tower, with random weights, as retrieval models."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

pytest.importorskip("open_clip", reason="extra `open-clip`")
pytest.importorskip("transformers", reason="extra `recipes`")
import open_clip

from ascl_plugin import AsymmetryCollator, AsymmetryLoss
from ascl_plugin.adapters.towers.open_clip import OpenClipImages, OpenClipWords, attach, export
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training.models import make_model
from ascl_plugin.training.parsing import parse_options
from ascl_plugin.training.resolve import resolve
from ascl_plugin.training.wise_ft import WiseFT

# (K, region width, word width)
SIZES = {
    "tiny-vit": (16, 32, 32),
    "tiny-resnet": (4, 256, 32),
    "tiny-convnext": (4, 64, 32),
    "tiny-timm-vit": (100, 64, 32),
    "tiny-bert": (16, 32, 16),
}
NAMES = sorted(SIZES)
CAPTIONS = ["a dog runs", "a cat", "two cats", "a dog runs a cat runs"]


def small(name, clips, **options):
    torch.manual_seed(1)
    options = {"fusion": {"num_heads": 2}, "dim": 16, **options}
    return attach(name, clips[name], **options)


def pixels(model, number=4):
    side = model.image_encoder.half.image_size
    side = side[0] if isinstance(side, tuple) else side
    return torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(2))


def training_step(model, captions=CAPTIONS):
    """The loss of a batch with all that is generated, and its gradients."""
    rows = [
        {"captions": [c, "a dog"], "row": i, "epoch": 0, "caption_index": 0}
        for i, c in enumerate(captions)
    ]
    batch = AsymmetryCollator(model.text_encoder.tokenize, positives="mixed", seed=0)(rows)
    torch.manual_seed(3)  # dropout of a BERT
    blocks = model.train()({**batch, "pixel_values": pixels(model, len(captions))})
    loss = AsymmetryLoss()(**blocks)
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_are_those_of_the_bare_model(clips, name):
    """encode_image and encode_text to 1e-5; regions and words have the tower's own sizes."""
    model = small(name, clips).eval()
    bare = open_clip.create_model(name, clips[name]).eval()
    x = pixels(model)
    images = model.image_encoder(x)
    tokens = model.text_encoder.tokenize(CAPTIONS)
    texts = model.text_encoder(**tokens)
    with torch.no_grad():
        torch.testing.assert_close(images.pooled, bare.encode_image(x), rtol=0, atol=1e-5)
        whole = bare.encode_text(open_clip.get_tokenizer(name)(CAPTIONS))
    torch.testing.assert_close(model.text_encoder.embed(**tokens), whole, rtol=0, atol=1e-5)
    regions, region_dim, word_dim = SIZES[name]
    assert images.regions.shape == (4, regions, region_dim)
    assert model.image_encoder.region_dim == region_dim and images.pooled.shape == (4, 24)
    assert texts.words.shape == (4, tokens["input_ids"].shape[1], word_dim)
    assert images.pooled.std(0).min() > 0 and whole.std(0).min() > 0


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-timm-vit", "tiny-convnext"])
def test_words_are_what_the_text_embedding_is_made_of(clips, name):
    """The word at the end of the text, through the tower's projection, is the text's embedding."""
    words = small(name, clips).eval().text_encoder
    tokens = words.tokenize(CAPTIONS)
    features = words(**tokens)
    end = features.words[torch.arange(4), tokens["attention_mask"].sum(1) - 1]
    project = getattr(words.half, "text", words.half).text_projection
    whole = project(end) if isinstance(project, nn.Linear) else end @ project
    torch.testing.assert_close(whole, words.embed(**tokens), rtol=0, atol=1e-5)


def test_regions_are_what_the_image_embedding_is_made_of(clips):
    """Of a ViT whose embedding is the patches' mean, projected; of a ResNet the last map."""
    images = OpenClipImages("tiny-vit", clips["tiny-vit"])
    images.half.pool_type = "avg"
    features = images(pixels(small("tiny-vit", clips)))
    torch.testing.assert_close(features.regions.mean(1) @ images.half.proj, features.pooled)
    resnet = OpenClipImages("tiny-resnet", clips["tiny-resnet"])
    features = resnet(torch.rand(2, 3, 64, 64))
    grid = features.regions.transpose(1, 2).unflatten(2, (2, 2))
    torch.testing.assert_close(resnet.half.attnpool(grid), features.pooled)


def test_a_hugging_face_tower_gives_its_last_hidden_states(clips, tmp_path):
    words = OpenClipWords("tiny-bert", clips["tiny-bert"])
    tokens = words.tokenize(["a dog runs", "zebra"])
    assert tokens["input_ids"].tolist() == [[2, 5, 6, 7, 3], [2, 1, 3, 0, 0]]
    expected = words.half.text.transformer(**tokens).last_hidden_state
    torch.testing.assert_close(words(**tokens).words, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tune", ["partial", "lora", "full"])
def test_a_training_step_moves_what_it_should(clips, name, tune):
    """Every trained parameter gets a finite gradient, so that nothing idle is left in; of "lora"
    those are adapters alone, of "partial" the last block and not the first."""
    if tune == "lora":
        pytest.importorskip("peft", reason="extra `lora`")
    model = small(name, clips, tune=tune, unfrozen_blocks=1, num_regions=4)
    assert torch.isfinite(training_step(model))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (key in trained), key
        assert parameter.grad is None or parameter.grad.isfinite().all()
    for encoder in (model.image_encoder, model.text_encoder):
        assert not encoder.frozen and any(p.grad.abs().max() > 0 for p in grads(encoder))
        inside = [n for n, p in encoder.named_parameters() if p.requires_grad]
        every = list(encoder.named_parameters())
        assert all("lora_" in n for n in inside) == (tune == "lora")
        if tune == "partial":
            assert 0 < len(inside) < len(every)
            assert not any("resblocks.0." in n or "layer1." in n or "layer.0." in n for n in inside)
            assert not any(n.startswith(("net.conv1", "net.trunk.stem")) for n in inside)
        if tune == "full":
            assert len(every) - len(inside) < 12  # projection, scale, BERT's pooler
    assert model.encode_images({"pixel_values": pixels(model)}).regions.shape == (4, 4, 16)


def grads(module):
    return [p for p in module.parameters() if p.grad is not None]


def test_frozen_layers_keep_their_batch_statistics(clips):
    model = small("tiny-resnet", clips, tune="partial", unfrozen_blocks=1)
    before = {k: v.clone() for k, v in model.image_encoder.state_dict().items() if "running" in k}
    training_step(model)
    after = model.image_encoder.state_dict()
    moved = {k.split(".")[1] for k in before if not torch.equal(before[k], after[k])}
    assert moved == {"layer4"}


@pytest.mark.parametrize("name", NAMES)
def test_checkpointed_gradients_are_the_same(clips, name):
    found = []
    for checkpointing in (False, True):
        refused = name == "tiny-resnet" and checkpointing
        quiet = pytest.warns(UserWarning, match="no gradient checkpointing")
        with quiet if refused else nullcontext():
            model = small(name, clips, tune="full", gradient_checkpointing=checkpointing)
        training_step(model)
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_open_clip_loads_what_was_fine_tuned(clips, name, tune, tmp_path):
    """Trained, exported, loaded by open_clip: the same embeddings, and not those of before.

    And saved and loaded as a retrieval model: the same scores.
    """
    if tune == "lora":
        pytest.importorskip("peft", reason="extra `lora`")
    model = small(name, clips, tune=tune)
    training_step(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    x, tokens = pixels(model), model.text_encoder.tokenize(CAPTIONS)
    path = tmp_path / ("weights.pt" if tune == "lora" else "weights.safetensors")
    export(model, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    loaded = open_clip.create_model(name, pretrained=str(path)).eval()
    bare = open_clip.create_model(name, clips[name]).eval()
    assert loaded.state_dict().keys() == bare.state_dict().keys()
    with torch.no_grad():
        ids = open_clip.get_tokenizer(name)(CAPTIONS)
        for ours, theirs, before in (
            (model.image_encoder(x).pooled, loaded.encode_image(x), bare.encode_image(x)),
            (model.text_encoder.embed(**tokens), loaded.encode_text(ids), bare.encode_text(ids)),
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
            assert (ours - before).abs().max() > 1e-3

        model.save_pretrained(tmp_path / "model")
        again = RetrievalModel.from_pretrained(tmp_path / "model")
        scores = [m({**tokens, "pixel_values": x})["sim"] for m in (model, again)]
    torch.testing.assert_close(*scores)


def dual_encoder(name, clips, tune):
    """The towers alone: scores are cosines of the two embeddings."""
    half = {"name": "open_clip", "model": name, "weights": clips[name], "tune": tune}
    torch.manual_seed(1)
    return RetrievalModel(
        half, {**half, "embedding": True}, {"name": "pooled", "image": "pooled"}, dim=24,
        feature_norm="none", text_pool="mean", projection="none",
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fusion", [{"num_heads": 2}, {"name": "pooled"}])
@torch.no_grad()
def test_attached_scores_are_the_towers_own_until_it_trains(clips, name, fusion):
    model = attach(name, clips[name], fusion=fusion).eval()
    bare = open_clip.create_model(name, clips[name]).eval()
    x, texts = pixels(model), open_clip.get_tokenizer(name)(CAPTIONS)
    image, text = bare.encode_image(x, normalize=True), bare.encode_text(texts, normalize=True)
    found = model.fusion(
        model.encode_images({"pixel_values": x}),
        model.encode_texts(model.text_encoder.tokenize(CAPTIONS)),
    )
    torch.testing.assert_close(found, image @ text.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "tune"), [("tiny-vit", "lora"), ("tiny-vit", "full"), ("tiny-bert", "full")]
)
def test_fine_tuning_starts_at_the_bare_model(clips, name, tune):
    """Cosines of encode_image and encode_text before the first step; after one, others."""
    if tune == "lora":
        pytest.importorskip("peft", reason="extra `lora`")
    model = dual_encoder(name, clips, tune).eval()
    bare = open_clip.create_model(name, clips[name]).eval()
    batch = {**model.text_encoder.tokenize(CAPTIONS), "pixel_values": pixels(model)}
    with torch.no_grad():
        images = bare.encode_image(batch["pixel_values"], normalize=True)
        texts = bare.encode_text(open_clip.get_tokenizer(name)(CAPTIONS), normalize=True)
        torch.testing.assert_close(model(batch)["sim"], images @ texts.T, rtol=0, atol=1e-5)
    assert torch.isfinite(training_step(model))
    if tune == "full":  # the text tower's projection trains, too
        moved = [n for n, p in model.text_encoder.named_parameters() if p.grad is not None]
        assert any("proj.2" in n or "text_projection" in n for n in moved)
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1.0).step()
    with torch.no_grad():
        assert (model.eval()(batch)["sim"] - images @ texts.T).abs().max() > 1e-4


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_wise_ft_interpolates_merged_weights(clips, tune):
    """Of a low-rank update W + BA, too: 0.7 W + 0.3 (W + BA) = W + 0.3 BA."""
    if tune == "lora":
        pytest.importorskip("peft", reason="extra `lora`")
    model = dual_encoder("tiny-vit", clips, tune)

    def merged():
        both = (model.image_encoder, model.text_encoder)
        return [x for half in both for x in half.merged_state().values()]

    first, wise = merged(), WiseFT(model, 0.3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    trained = merged()
    with wise.in_place():
        for old, new, between in zip(first, trained, merged(), strict=True):
            torch.testing.assert_close(between, 0.7 * old + 0.3 * new, rtol=1e-4, atol=1e-5)
    for old, new in zip(trained, merged(), strict=True):
        assert torch.equal(old, new)
    if tune == "lora":
        with pytest.raises(ValueError, match=r"that start at 0 .*\.lora_B\.default\.weight"):
            WiseFT(model, 0.3)


def test_export_wants_both_halves_of_one_model(clips, tmp_path):
    model = small("tiny-vit", clips)
    with pytest.raises(ValueError, match=r"\.safetensors or \.pt, got .*x\.bin"):
        export(model, tmp_path / "x.bin")
    model.text_encoder = OpenClipWords("tiny-bert", clips["tiny-bert"])
    with pytest.raises(ValueError, match="two models: images tiny-vit, texts tiny-bert"):
        export(model, tmp_path / "x.pt")
    model.text_encoder = nn.Identity()
    with pytest.raises(TypeError, match="OpenClipImages and Identity"):
        export(model, tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


def test_masks_tell_real_tokens(clips):
    """Start, words, end; 49406 and 49407 in CLIP's vocabulary, where 0 is padding and "!"."""
    words = OpenClipWords("tiny-vit", clips["tiny-vit"])
    tokens = words.tokenize(["a dog runs", "a", ""])
    assert tokens["attention_mask"].int().tolist() == [[1] * 5, [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
    assert tokens["input_ids"][0, 0] == 49406 and tokens["input_ids"][1, 2] == 49407
    bare = OpenClipWords("tiny-vit", clips["tiny-vit"], keep_special_tokens=False)
    assert bare(**tokens).mask.int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0] * 5]
    loud = words.tokenize(["!~"])
    assert loud["input_ids"][0, 1] == 0 and loud["attention_mask"].all()


def test_padding_that_is_the_end_token(clips):
    """As SigLIP writes it: the first padding is the end of the text."""
    words = OpenClipWords("tiny-bert", clips["tiny-bert"])
    words.pad_id, words.special_ids = 3, [3]
    ids = torch.tensor([[5, 6, 3, 3, 3], [5, 6, 7, 8, 3]])
    assert words._real(ids).int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-convnext", "tiny-bert"])
def test_what_stands_beside_a_text_changes_no_word_of_it(clips, name):
    words = small(name, clips).eval().text_encoder
    alone = words(**words.tokenize(["a cat"])).words[0, :4]
    beside = words(**words.tokenize(["a cat", "a dog runs a dog runs"])).words[0, :4]
    torch.testing.assert_close(beside, alone)


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-bert"])
def test_a_text_longer_than_the_context_is_cut_and_counted(clips, name):
    """Twelve tokens, start and end among them, hold ten words; the end stays."""
    words = OpenClipWords(name, clips[name])
    texts = [" ".join(["dog"] * n) for n in (9, 10, 11, 40)]
    ids = words.tokenize(texts)["input_ids"]
    assert ids.shape == (4, 12) and (ids[2:, -1] == ids[1, -1]).all()
    assert words.count_cut(texts) == 2
    assert OpenClipWords(name, clips[name], max_words=99).max_words == 12


def test_bf16(clips):
    """By autocast: half the precision inside, fp32 losses, gradients for every weight."""
    model = small("tiny-vit", clips, tune="full")
    with torch.autocast("cpu", torch.bfloat16):
        loss = training_step(model)
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert all(g.grad.dtype == torch.float32 and g.grad.isfinite().all() for g in grads(model))
    plain = training_step(small("tiny-vit", clips, tune="full"))
    assert 0 < abs(loss - plain) < 0.1 * plain


def test_options_of_a_recipe_build_it(clips):
    both = {"name": "open_clip", "model": "tiny-vit", "weights": clips["tiny-vit"]}
    both["tune"] = "partial"
    config = {"image_encoder": {**both, "num_regions": 4}, "text_encoder": {**both, "max_words": 7}}
    options = resolve(parse_options(["--dim=16", "--fusion.num_heads=2"], config))
    model = make_model(options, [["a dog"]])
    assert type(model.image_encoder) is OpenClipImages and model.image_encoder.side == 2
    assert model.text_encoder.max_words == 7
    assert model.image_encoder.tune == model.text_encoder.tune == "partial"


# ---------------------------------------------------------------- what cannot be


def test_unknown_names_suggest_the_nearest(clips, tmp_path):
    with pytest.raises(ValueError, match=r"no model 'vit-b32' \(did you mean 'ViT-B-32'"):
        attach("vit-b32")
    with pytest.raises(ValueError, match=r"no model 'qqqqqq'$"):
        attach("qqqqqq")
    with pytest.raises(
        ValueError, match=r"neither a file nor a tag of ViT-B-32 \(did you mean .*laion"
    ):
        attach("ViT-B-32", "laion2b")
    with pytest.raises(ValueError, match="neither a file nor a tag of tiny-vit; it has no tags"):
        attach("tiny-vit", str(tmp_path / "none.pt"))


def test_weights_that_do_not_fit(clips, tmp_path):
    with pytest.raises(ValueError, match=r"tiny-resnet\.pt does not fit tiny-vit: .*Missing key"):
        attach("tiny-vit", clips["tiny-resnet"])
    (tmp_path / "w.pt").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"w\.pt does not fit tiny-vit"):
        attach("tiny-vit", str(tmp_path / "w.pt"))


def test_weights_out_of_reach_are_named(clips, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", fail)
    with pytest.raises(OSError, match=r"ViT-B-32, weights='openai' cannot be had .*no route"):
        OpenClipImages("ViT-B-32", "openai")
    with pytest.raises(OSError, match="local-dir:/nowhere cannot be had"):
        OpenClipImages("local-dir:/nowhere")


def test_options_out_of_range(clips):
    def build(**options):
        OpenClipImages("tiny-vit", clips["tiny-vit"], **options)

    with pytest.raises(ValueError, match="lora= needs tune='lora', got tune='full'"):
        build(tune="full", lora={"r": 4})
    with pytest.raises(ValueError, match="unfrozen_blocks must be at least 1, got 0"):
        build(tune="partial", unfrozen_blocks=0)
    with pytest.warns(UserWarning, match="tiny-vit has random weights"):
        OpenClipImages("tiny-vit")
    with pytest.raises(ValueError, match="coca_ViT-B-32 is a CoCa"):
        OpenClipImages("coca_ViT-B-32")


def test_options_of_lora_are_peft_s(clips):
    pytest.importorskip("peft", reason="extra `lora`")
    images = OpenClipImages(
        "tiny-vit", clips["tiny-vit"], tune="lora", lora={"r": 3, "target_modules": ["c_fc"]}
    )
    trained = {n: p for n, p in images.named_parameters() if p.requires_grad}
    assert len(trained) == 4 and all("c_fc" in n and 3 in p.shape for n, p in trained.items())


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("tiny-vit", {"attn", "out_proj", "c_fc", "c_proj"}),
        ("tiny-timm-vit", {"qkv", "proj", "fc1", "fc2"}),
        ("tiny-resnet", {"conv1", "conv2", "conv3", "0"}),  # "0" is in a shortcut
    ],
)
def test_low_rank_updates_reach_every_kind_of_layer(clips, name, layers):
    pytest.importorskip("peft", reason="extra `lora`")
    images = OpenClipImages(name, clips[name], tune="lora")
    trained = [n for n, p in images.named_parameters() if p.requires_grad]
    found = {n.split(".lora_")[0].removesuffix(".base_layer").split(".")[-1] for n in trained}
    assert layers <= found, found
