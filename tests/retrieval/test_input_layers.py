"""Norms of frozen features, pooled texts, the bag of words: by hand, and through a saved model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("huggingface_hub", reason="extra `recipes`")

from ascl_plugin import registry
from ascl_plugin.features import TextFeatures, whole_texts
from ascl_plugin.retrieval.encoders import GridEncoder, WordTransformer
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.input_norm import InputNorm, Moments
from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs
from ascl_plugin.retrieval.lexical import BagOfWords, LatentSemantics, vocabulary_of
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.retrieval.raw_features import raw_texts
from ascl_plugin.retrieval.text_pool import ANGLES, TextPool

WORDS = torch.tensor([[[1.0, 6], [3, 2], [9, 9]], [[9, 9], [9, 9], [9, 9]]])
MASK = torch.tensor([[True, True, False], [False, False, False]])


class FrozenGrid(GridEncoder):
    frozen = True

    def fingerprint(self):
        return {"encoder": "FrozenGrid"}


class FrozenWords(WordTransformer):
    frozen = True

    def fingerprint(self):
        return {"encoder": "FrozenWords"}


@pytest.fixture
def make(monkeypatch):
    """A function that gives a model of frozen encoders, D = 8."""
    monkeypatch.setattr(registry, "_registered", {})
    registry.register("image_encoder", "still")(FrozenGrid)
    registry.register("text_encoder", "still")(FrozenWords)

    def build(image="still", text="still", **options):
        torch.manual_seed(0)
        words = {"name": text, "vocabulary": list("abcde"), "width": 8}
        return RetrievalModel(
            {"name": image, "width": 8, "grid": 2}, words, options.pop("fusion", {"num_heads": 2}),
            dim=8, **options,
        )  # fmt: skip

    return build


def cached(count=6, seed=0):
    """Raw features as a cache has them, one region and one word in three not real."""
    generator = torch.Generator().manual_seed(seed)
    found = {
        "regions": torch.rand(count, 3, 8, generator=generator) * 4,
        "pooled": torch.rand(count, 8, generator=generator),
        "words": torch.randn(count, 3, 8, generator=generator) + 5,
    }
    real = torch.arange(3) < 2
    return found | {"region_mask": real.repeat(count, 1), "word_mask": real.repeat(count, 1)}


def test_moments_of_parts_are_those_of_the_whole():
    """Roots of 1, 4, 9, 16 in parts of 3 and 1: mean 5/2, variance 5/4; a constant has 0."""
    moments = Moments("x", root=True)
    for part in ([[1.0, 4], [4, 4], [9, 4]], [], [[16.0, 4]]):
        moments.add(torch.tensor(part).view(-1, 2))
    assert moments.mean.tolist() == pytest.approx([2.5, 2])
    assert moments.variance.tolist() == pytest.approx([1.25, 0])
    norm = InputNorm(2, root=True)
    with pytest.raises(RuntimeError, match="input_norm has no statistics"):
        norm(torch.ones(1, 2))
    norm.set(moments)
    found = norm(torch.tensor([[4.0, 9], [-1, 4]])).tolist()
    deviation = math.sqrt(1.25)
    assert found[0] == pytest.approx([-0.5 / deviation, 1])
    assert found[1] == pytest.approx([-3.5 / deviation, 0])  # the root of -1 is -1
    with pytest.raises(ValueError, match="pooled has a value that is not finite"):
        Moments("pooled", root=True).add(torch.tensor([[torch.nan]]))


def test_statistics_are_of_real_places_and_saved(make, tmp_path):
    model = make(input_norm="sqrt_standard", text_pool="mean_max", feature_norm="none").eval()
    whole = cached()
    with pytest.raises(RuntimeError, match="no statistics"):
        model.encode_images(whole)
    model.fit_input_norm({k: v[i : i + 4] for k, v in whole.items()} for i in (0, 4))
    real = whole["regions"][:, :2].flatten(0, 1).sqrt()
    norm = model.input_norms["region"]
    torch.testing.assert_close(norm.mean, real.mean(0))
    torch.testing.assert_close(norm.deviation, real.std(0, correction=0))
    words = whole["words"][:, :2]
    text = torch.cat([words.mean(1), words.amax(1)], 1)
    torch.testing.assert_close(model.input_norms["text"].mean, text.mean(0))
    scaled = (text - text.mean(0)) / text.std(0, correction=0)
    pooled = model.encode_texts(whole).pooled
    torch.testing.assert_close(pooled, model.text_projection(scaled), rtol=1e-4, atol=1e-5)

    model.save_pretrained(tmp_path)
    loaded = RetrievalModel.from_pretrained(tmp_path)
    assert not loaded.needs_input_norm
    assert torch.equal(loaded(whole)["sim"], model(whole)["sim"])
    before = loaded.input_norms["word"].mean.clone()
    loaded.fit_input_norm([cached(seed=1)])  # statistics that weights were trained on stay
    assert torch.equal(loaded.input_norms["word"].mean, before)


def test_words_and_regions_start_from_a_model_of_wholes_alone(make, tmp_path):
    """Its statistics and weights stay; the statistics it lacks are taken from the data."""
    setup = pytest.importorskip("ascl_plugin.training.setup", exc_type=ImportError)
    options = {"input_norm": "standard", "text_pool": "mean_max", "feature_norm": "none"}
    wholes = make(fusion={"name": "pooled", "image": "pooled"}, **options)
    wholes.fit_input_norm([cached()])
    wholes.save_pretrained(tmp_path)
    model = make(fusion={"name": "late"}, **options)
    torch.nn.init.zeros_(model.text_projection.weight)
    setup.start_from(model, str(tmp_path))
    assert torch.equal(model.text_projection.weight, wholes.text_projection.weight)
    assert model.needs_input_norm
    model.fit_input_norm([cached(seed=1)])
    mean = model.input_norms["pooled"].mean
    torch.testing.assert_close(mean, cached()["pooled"].mean(0))
    region = model.input_norms["region"].mean
    torch.testing.assert_close(region, cached(seed=1)["regions"][:, :2].flatten(0, 1).mean(0))


def test_wholes_stay_where_words_and_regions_train_alone(make):
    setup = pytest.importorskip("ascl_plugin.training.setup", exc_type=ImportError)
    model = make(fusion={"name": "late"}, text_pool="mean")
    setup.freeze_wholes(model)
    heads = [(n, weight) for n, weight in model.named_parameters() if "_projection." in n]
    trained = {name for name, weight in heads if weight.requires_grad}
    assert trained == {
        f"{side}_projection.{part}" for side in ("region", "word") for part in ("weight", "bias")
    }
    with pytest.raises(ValueError, match="nothing would train"):
        setup.freeze_wholes(make(fusion={"name": "pooled", "image": "pooled"}, text_pool="mean"))
    with pytest.raises(ValueError, match="needs a text_pool"):
        setup.freeze_wholes(make(fusion={"name": "late"}))


def test_only_frozen_sides_are_normalized(make, monkeypatch):
    registry.register("image_encoder", "moving")(GridEncoder)
    registry.register("text_encoder", "moving")(WordTransformer)
    assert set(make(text="moving", input_norm="standard").input_norms) == {"region", "pooled"}
    with pytest.raises(ValueError, match="input_norm 'standard' is for frozen encoders"):
        make("moving", "moving", input_norm="standard")
    for options, message in (
        ({"input_norm": "sqrt"}, "input_norm must be one of none, standard, sqrt_standard"),
        ({"text_pool": "cls"}, "text_pool must be one of none, mean, max, mean_max, gpo"),
        ({"image_dropout": 1.0}, r"image_dropout must be in \[0, 1\), got 1.0"),
        ({"lexical": {"vocabulary": ["a"]}}, "choose a text_pool"),
        ({"lexical": {"vocabulary": []}, "text_pool": "mean"}, "the vocabulary is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**options)


def test_dropout_is_of_training_alone(make):
    model, batch = make(image_dropout=0.5, text_dropout=0.5, text_pool="mean"), cached()

    def features():
        images, texts = model.encode_images(batch), model.encode_texts(batch)
        return [images.regions, images.pooled, texts.words, texts.pooled]

    assert not any(torch.equal(x, y) for x, y in zip(features(), features(), strict=True))
    model.eval()
    assert all(torch.equal(x, y) for x, y in zip(features(), features(), strict=True))


@pytest.mark.parametrize("pool", ["none", "mean", "mean_max", "gpo"])
def test_joined_captions_are_texts_of_both(make, pool):
    """Texts 0 and 1 of two words each: T+ of both has the four words, whichever comes first."""
    lexical = None if pool == "none" else {"kind": "bag", "vocabulary": list("abc")}
    model = make(text_pool=pool, lexical=lexical).eval()
    batch = cached() | {"partner": torch.tensor([1, 0, 2, 3, 4, 5])}
    words = batch["words"][:2, :2].flatten(0, 1).repeat(2, 1, 1)
    whole = {"words": words, "word_mask": torch.ones(2, 4, dtype=torch.bool)}
    if lexical:
        batch["lexical_ids"] = model.lexical.ids(["a b", "c", "", "a", "a", "b"])
        whole["lexical_ids"] = model.lexical.ids(["a b c", "c a b"])
    _, texts = model.encode(batch)
    expected, found = model.encode_texts(whole), texts["positive_"]
    sizes = {k: v.shape for k, v in model(batch).items()}
    assert sizes == {"sim": (6, 6), "positive_sim": (6, 6)}
    if pool == "none":
        found, expected = (whole_texts(x) for x in (found, expected))
    else:
        found, expected = found.pooled, expected.pooled
    torch.testing.assert_close(found[:2], expected)
    negative = {f"negative_{k}": v.flip(0) for k, v in batch.items() if "word" in k or "ids" in k}
    assert "positive_negative_sim" in model(batch | negative)


def test_joined_wholes_are_those_of_joined_words(make):
    """A model of wholes reads what was pooled before: the same T+ as from the words."""
    model = make(text_pool="mean_max", fusion={"name": "pooled", "image": "pooled"}).eval()
    batch = cached() | {"partner": torch.tensor([1, 2, 0, 3, 4, 5])}
    batch["words"][2, 1], batch["word_mask"][2, 1] = 0, False  # captions of different lengths
    texts = zip(batch["words"], batch["word_mask"], strict=True)
    pooled = torch.stack([model.pool_words(words[mask]) for words, mask in texts])
    short = {k: v for k, v in batch.items() if "word" not in k} | {"pooled_words": pooled}
    torch.testing.assert_close(model(short)["positive_sim"], model(batch)["positive_sim"])


def test_pools_by_hand():
    """Words (1, 6), (3, 2) and padding: mean (2, 4), maximum (3, 6); a text of padding alone: 0."""
    texts = TextFeatures(WORDS, MASK)
    for kind, expected in (("mean", [2, 4]), ("max", [3, 6]), ("mean_max", [2, 4, 3, 6])):
        pool = TextPool(kind, 2)
        assert pool(texts).tolist() == [expected, [0] * pool.width]
        assert pool.width == len(expected)
    gpo = TextPool("gpo", 2)
    torch.testing.assert_close(gpo(texts), torch.tensor([[2.0, 4], [0, 0]]))  # starts as the mean
    with torch.no_grad():  # the less the sine of a rank, the more weight: all on rank 0
        gpo.theta = torch.nn.Linear(4 * ANGLES, 1)
        gpo.theta.weight.zero_()[0, 0] = -1e4
    torch.testing.assert_close(gpo(texts), torch.tensor([[3.0, 6], [0, 0]]))


def test_the_bag_of_words_by_hand(make):
    """Vectors of dog and red (1, 2), (3, 4): "Red dog, red zebra" has 2 red + dog over sqrt(3)."""
    found = vocabulary_of([["a dog", "red dog"], ["red"]])
    assert found == ["dog", "red"]
    bag = BagOfWords(found, 2).eval()
    with torch.no_grad():
        bag.embed.weight.copy_(torch.tensor([[0.0, 0], [1, 2], [3, 4]]))
    ids = bag.ids(["Red dog, red zebra", "zebra"])
    assert ids.tolist() == [[2, 1, 2], [0, 0, 0]]
    root = math.sqrt(3)
    assert bag(ids).flatten().tolist() == pytest.approx([7 / root, 10 / root, 0, 0])
    dropping = BagOfWords(found, 2, word_dropout=0.5)
    counts = (dropping(torch.ones(400, 1, dtype=torch.int64)) != 0).any(1).sum().item()
    assert 150 < counts < 250


def test_latent_semantics_are_those_of_the_whole_svd():
    """Products of texts' vectors are those by numpy's SVD, whatever signs the vectors have."""
    captions = [["a dog runs", "a a cat"], ["red dog", "dog cat red", "a cat runs"]]
    semantics = LatentSemantics(["a", "dog", "cat", "red", "runs"], dim=2)
    semantics.fit(captions)
    weights = np.log(5 / np.array([3, 3, 3, 2, 2]))
    bags = [[1, 1, 0, 0, 1], [1, 0, 1, 0, 0], [0, 1, 0, 1, 0], [0, 1, 1, 1, 0], [1, 0, 1, 0, 1]]
    rows = np.array(bags) * weights
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = rows @ np.linalg.svd(rows)[2][:2].T
    found = semantics(
        semantics.ids(["Dog a runs", "a cat", "red dog", "cat red dog", "a cat runs"])
    )
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    assert semantics(semantics.ids(["zebra"])).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 2}, "dim must be 1 to 1"),
        ({"dim": 0}, "dim must be"),
        ({"vocabulary": []}, "empty"),
    ],
)
def test_latent_semantics_refuse(options, message):
    with pytest.raises(ValueError, match=message):
        LatentSemantics(**{"vocabulary": ["a", "b"], **options})


def test_latent_semantics_are_saved_with_a_model(make, tmp_path):
    lexical = {"kind": "lsa", "vocabulary": ["a", "b", "c"], "dim": 2}
    model = make(text_pool="mean", lexical=lexical).eval()
    model.lexical.fit([["a b", "b c"], ["a", "c"]])
    batch = TextInputs(model.text_encoder, lexical=model.lexical_ids)(["a b", "c"])
    found = model.encode_texts(batch).pooled
    assert not torch.equal(found[0], found[1])
    model.save_pretrained(tmp_path)
    again = RetrievalModel.from_pretrained(tmp_path).lexical
    ids = again.ids(["a b", "c"])
    assert torch.equal(ids, batch["lexical_ids"]) and torch.equal(again(ids), model.lexical(ids))


def test_lexical_ids_come_with_texts(make, tmp_path):
    model = make(text_pool="mean", lexical={"vocabulary": ["a", "c"]}, feature_norm="none").eval()
    inputs = TextInputs(model.text_encoder, lexical=model.lexical_ids)
    batch = inputs(["a b", "c"])
    assert batch["lexical_ids"].tolist() == [[1], [2]]
    texts = model.encode_texts(batch)
    bags = model.lexical(batch["lexical_ids"])
    without = model.text_projection(model.text_pool(raw_texts(model.text_encoder, batch)))
    torch.testing.assert_close(texts.pooled, without + bags)
    positives = {f"positive_{k}": v for k, v in batch.items()}
    assert torch.equal(model.encode_texts(positives, "positive_").pooled, texts.pooled)
    with pytest.raises(ValueError, match="lacks lexical_ids"):
        model.encode_texts({k: v for k, v in batch.items() if k != "lexical_ids"})
    model.save_pretrained(tmp_path)
    assert RetrievalModel.from_pretrained(tmp_path).lexical.numbers == {"a": 1, "c": 2}
    plain = TextInputs(make().text_encoder, lexical=make().lexical_ids)(["a"])
    assert "lexical_ids" not in plain


@pytest.mark.parametrize("fusion", ["pooled", "late"])
def test_words_pooled_before_give_the_same_scores(make, tmp_path, fusion):
    """Also after packing; a model of wholes reads neither regions nor words."""
    options = {"image": "pooled"} if fusion == "pooled" else {"local_weight": 0.5}
    model = make(fusion={"name": fusion, **options}, text_pool="mean_max", input_norm="standard")
    model.eval()
    for color in ("red", "blue"):
        Image.new("RGB", (32, 32), color).save(tmp_path / f"{color}.png")
    rows = [
        {"image": {"path": str(tmp_path / f"{c}.png"), "bytes": None}, "image_id": c}
        for c in ("red", "blue")
    ]
    texts = ["a b", "c d e", "e"]
    slow = ImageInputs(model.image_encoder, tmp_path), TextInputs(model.text_encoder, tmp_path)
    fast = (
        ImageInputs(model.image_encoder, tmp_path, wholes=model.wholes_only),
        TextInputs(
            model.text_encoder, tmp_path, pool=model.pool_words, words=not model.wholes_only
        ),
    )
    for inputs, items in zip((*slow, *fast), (rows, texts) * 2, strict=True):
        inputs.prepare(items, 2)
    model.fit_input_norm([slow[0](rows), slow[1](texts)])
    wholes = {"pooled", "text"}
    assert set(model.input_norms) == (wholes if fusion == "pooled" else {*wholes, "region", "word"})
    read = {"pooled", "pooled_words"} | (
        set() if fusion == "pooled" else {"regions", "words", "word_mask"}
    )
    wanted = model(slow[0](rows) | slow[1](texts))["sim"]
    for packed in (False, True):
        if packed:
            for inputs in fast:
                inputs.pack()
        batch = fast[0](rows) | fast[1](texts)
        assert set(batch) == read
        torch.testing.assert_close(model(batch)["sim"], wanted)
    assert make(text_pool="gpo").pool_words is None  # it learns


def test_an_evaluator_adds_to_the_cache_what_it_lacks(make, tmp_path):
    """The same features as without a cache, which holds 16 bits; each text is encoded once."""
    close = {"atol": 1e-3, "rtol": 1e-3}
    model = make(text_pool="mean").eval()
    plain = Evaluator(model, None, TextInputs(model.text_encoder))
    cached = Evaluator(model, None, TextInputs(model.text_encoder, tmp_path))
    texts = ["a b", "c d e", "e", "a b"]
    wanted = plain.encode_texts(texts)
    torch.testing.assert_close(cached.encode_texts(texts).pooled, wanted.pooled, **close)
    calls = []
    model.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    again = cached.encode_texts(texts[::-1]).pooled.flip(0)
    torch.testing.assert_close(again, wanted.pooled, **close)
    assert not calls
