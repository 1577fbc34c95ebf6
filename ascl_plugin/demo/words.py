"""What the words of a text are called, as its encoder cuts it."""

from __future__ import annotations

from typing import Any

from ascl_plugin.retrieval.encoders import UNKNOWN


def word_names(encoder: Any, text: str) -> list[str]:
    """Names of the L words that `encoder.tokenize([text])` makes, padding included.

    Word pieces that go on within a word begin with two hash signs, as in "play", "##ing". A word
    that the encoder does not know is called [UNK]; of an encoder that does not tell, words are
    numbered.
    """
    ids = encoder.tokenize([text])["input_ids"][0].tolist()
    known = getattr(encoder, "ids", None)
    if known is not None:
        by_id = {number: word for word, number in known.items()} | {UNKNOWN: "[UNK]"}
        return [by_id.get(number, "[PAD]") for number in ids]
    tokenizer: Any = getattr(encoder, "tokenizer", None)
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # open_clip wraps those of transformers
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        return [tidy(token) for token in tokenizer.convert_ids_to_tokens(ids)]
    if hasattr(tokenizer, "decode"):
        return [tokenizer.decode([number]).strip() for number in ids]
    return [str(number) for number in range(1, len(ids) + 1)]


def tidy(token: str) -> str:
    """Without the marks with which some vocabularies begin or end a word."""
    return token.replace("</w>", "").lstrip("Ġ▁") or token
