"""Names of the words of a text, as its encoder cuts it."""

from __future__ import annotations

from ascl_plugin.interfaces import CountsUnknown, TextEncoder
from ascl_plugin.retrieval.encoders import UNKNOWN, words_of


def word_names(encoder: TextEncoder, text: str) -> list[str]:
    """Return names of the L words that `encoder.tokenize([text])` makes, padding included.

    A word piece inside a word begins with two hash signs, as in "play", "##ing". An unknown word is
    [UNK]; words are numbered if the encoder has neither a vocabulary nor a tokenizer.
    """
    ids = encoder.tokenize([text])["input_ids"][0].tolist()
    known = getattr(encoder, "ids", None)
    if known is not None:
        by_id = {number: word for word, number in known.items()} | {UNKNOWN: "[UNK]"}
        return [by_id.get(number, "[PAD]") for number in ids]
    tokenizer: object = getattr(encoder, "tokenizer", None)
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # open_clip wraps those of transformers
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        return [tidy(token) for token in tokenizer.convert_ids_to_tokens(ids)]
    if hasattr(tokenizer, "decode"):
        return [tokenizer.decode([number]).strip() for number in ids]
    return [str(number) for number in range(1, len(ids) + 1)]


def unknown_words(encoder: TextEncoder, text: str) -> list[str]:
    """Return the words of a text that its encoder does not know, each once; [] if it cannot say."""
    if not isinstance(encoder, CountsUnknown):
        return []
    return [word for word in dict.fromkeys(words_of(text)) if encoder.count_unknown([word])[0]]


def tidy(token: str) -> str:
    """Remove the marks with which some vocabularies begin or end a word."""
    return token.replace("</w>", "").lstrip("Ġ▁") or token
