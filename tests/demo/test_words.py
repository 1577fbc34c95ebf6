"""Names of words, for every way an encoder may cut a text."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from ascl_plugin.demo.words import unknown_words, word_names
from ascl_plugin.retrieval.encoders import WordTransformer


def encoder(tokenizer=None, ids=(7, 1, 4)):
    return SimpleNamespace(
        tokenize=lambda texts: {"input_ids": torch.tensor([ids])}, tokenizer=tokenizer
    )


def test_words_of_a_vocabulary():
    words = WordTransformer(["red", "car"], width=8, max_words=3)
    assert word_names(words, "A red car, red") == ["[UNK]", "red", "car"]


def test_pieces_of_transformers():
    """Without the marks by which vocabularies say that a word begins or ends."""
    names = {7: "Ġplay", 1: "##ing", 4: "▁car", 2: "hat</w>"}
    tokenizer = SimpleNamespace(convert_ids_to_tokens=lambda ids: [names[i] for i in ids])
    wrapped = SimpleNamespace(tokenizer=tokenizer)  # as open_clip does
    for given in (tokenizer, wrapped):
        assert word_names(encoder(given, (7, 1, 4, 2)), "") == ["play", "##ing", "car", "hat"]


def test_open_clips_own_tokenizer_and_none():
    decode = SimpleNamespace(decode=lambda ids: f"w{ids[0]} ")
    assert word_names(encoder(decode), "") == ["w7", "w1", "w4"]
    assert word_names(encoder(), "") == ["1", "2", "3"]


def test_unknown_words_once_and_in_order():
    words = WordTransformer(["red", "car"], width=8, max_words=3)
    assert unknown_words(words, "A red zebra, a car") == ["a", "zebra"]
    assert unknown_words(encoder(), "anything") == []
