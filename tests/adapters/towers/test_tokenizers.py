"""A model's tokenizer is its own, in every adapter: none that a library builds is trusted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
import transformers

from ascl_plugin.registry import resolve

BertWords = resolve("text_encoder", "bert")
ClipWords = resolve("text_encoder", "transformers_clip")
TOWER = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "vocab_size": 200,
}  # fmt: skip
TEXTS = {
    "bert": ("BertModel", {}),
    "distilbert": ("DistilBertModel", {}),
    "roberta": ("RobertaModel", {}),
    "xlm-roberta": ("XLMRobertaModel", {}),
    "mpnet": ("MPNetModel", {}),
    "electra": ("ElectraModel", {"embedding_size": 16}),
    "gpt2": ("GPT2Model", {}),
}


def save(folder, name, **options):
    kind = getattr(transformers, name)
    kind(kind.config_class(**TOWER, **options)).save_pretrained(folder)
    return str(folder)


def without_tokenizer(folder, copy):
    shutil.copytree(folder, copy)
    for path in [*copy.glob("*token*"), *copy.glob("vocab*")]:
        path.unlink()
    return str(copy)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_model_without_tokenizer_files(kind, tmp_path):
    name, options = TEXTS[kind]
    save(tmp_path, name, **options)
    with pytest.raises(ValueError, match=r"^no tokenizer in .*(the model expects 200\b)"):
        BertWords(str(tmp_path))


@pytest.mark.parametrize("kind", ["clip", "siglip", "blip", "blip_itm"])
def test_a_dual_encoder_without_tokenizer_files(kind, dual_encoder, tmp_path):
    folder = without_tokenizer(dual_encoder(kind), tmp_path / kind)
    with pytest.raises(ValueError, match=r"^no tokenizer in .*the model expects 13\b"):
        ClipWords(folder)


def test_a_text_tower_of_open_clip_without_tokenizer_files(clips, bert, tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    folder = without_tokenizer(bert, tmp_path / "bert")
    config = open_clip.get_model_config("tiny-bert")
    config["text_cfg"] |= {"hf_model_name": folder, "hf_tokenizer_name": folder}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-bert-bare", config)
    with pytest.raises(ValueError, match=r"^no tokenizer in tiny-bert-bare .*expects 13\b"):
        resolve("text_encoder", "open_clip")("tiny-bert-bare")


def test_the_tokenizer_of_another_model(bert, tmp_path):
    """The folder's tokenizer has 13 tokens, its model embeddings for 9."""
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    config = {**json.loads(Path(bert, "config.json").read_text()), "vocab_size": 9}
    transformers.BertModel(transformers.BertConfig(**config)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is another model's \(13 tokens, the model expects 9\)"):
        BertWords(str(tmp_path))


def test_a_tokenizer_without_a_padding_token(bert, tmp_path):
    save(tmp_path, "GPT2Model")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate(["<end>", *map(str, range(150))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<end>", eos_token="<end>"
    ).save_pretrained(tmp_path)
    encoder = BertWords(str(tmp_path))
    alone, beside = (encoder(**encoder.tokenize(t)).words[0] for t in (["1"], ["1", "2 3 4"]))
    torch.testing.assert_close(beside[:1], alone)


# ---------------------------------------------------------------- positions, and kinds of model


def test_more_words_than_positions(bert):
    """The model has 32 positions."""
    with pytest.raises(ValueError, match=r"max_words 33 is more than .* has positions, 32"):
        BertWords(bert, max_words=33)
    encoder = BertWords(bert)
    assert encoder.tokenize(["a dog " * 40])["input_ids"].shape == (1, 32)


def test_positions_of_roberta_begin_after_the_padding(bert, tmp_path):
    """34 embeddings with the padding's at 1: 32 positions are left."""
    config = {**TOWER, "vocab_size": 13, "max_position_embeddings": 34, "pad_token_id": 1}
    transformers.RobertaModel(transformers.RobertaConfig(**config)).save_pretrained(tmp_path)
    words = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]", *"abcdefgh"]
    transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(words)}).save_pretrained(
        tmp_path
    )
    encoder = BertWords(str(tmp_path), max_words=32)
    assert encoder(**encoder.tokenize(["a b " * 40])).words.shape[1] == 32
    with pytest.raises(ValueError, match="has positions, 32"):
        BertWords(str(tmp_path), max_words=33)


def test_a_whole_clip_or_an_encoder_decoder_is_no_text_encoder(clip, tmp_path):
    with pytest.raises(ValueError, match="clip of two towers: take text_encoder transformers_clip"):
        BertWords(clip)
    config = transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="t5 of encoder and decoder"):
        BertWords(str(tmp_path))


def test_a_model_folder_without_an_image_processor(clip, tmp_path):
    shutil.copytree(clip, tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").unlink()
    with pytest.raises(OSError, match=r"model folder .* lacks a file.*preprocessor_config.json"):
        resolve("image_encoder", "transformers_clip")(str(tmp_path / "clip"))


def test_unknown_words_are_counted(bert, clip, clips):
    """[CLS] a zebra [SEP] and [CLS] dog [SEP]: one of three words is [UNK]."""
    pytest.importorskip("open_clip")
    open_clip = resolve("text_encoder", "open_clip")
    for encoder in (BertWords(bert), ClipWords(clip), open_clip("tiny-bert")):
        assert encoder.count_unknown(["a zebra", "dog"]) == (1, 3)
    assert open_clip("tiny-vit").count_unknown(["a zebra"]) == (0, 0)
