"""Tokens as words: which of them count, and how many fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class SpecialTokens(Protocol):
    """The ids that a tokenizer of transformers has for the tokens around a text."""

    cls_token_id: int | None
    sep_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | None


class Tokenizer(SpecialTokens, Protocol):
    """The members of a tokenizer of transformers that are checked before it is used."""

    vocab_size: int
    all_special_ids: list[int]
    pad_token: str | None
    eos_token: str | None
    unk_token: str | None
    unk_token_id: int | None

    def __len__(self) -> int: ...


def check_tokenizer(tokenizer: Tokenizer, source: str, expected: int) -> None:
    """Check that a tokenizer is the model's own, and give it a padding token if it has none.

    From a folder without tokenizer files, transformers builds one of special tokens alone.

    Args:
        tokenizer: as transformers loaded it.
        source: name of the model, for errors.
        expected: number of tokens the model has embeddings for.

    Raises:
        ValueError: fewer than half as many tokens, none but special ones, or more than the model
            has embeddings for.
    """
    tokens = len(tokenizer)
    if tokens <= len(set(tokenizer.all_special_ids)) or 2 * tokens < expected:
        raise ValueError(
            f"no tokenizer in {source} ({tokens:,} tokens, the model expects {expected:,}); put "
            "the model's tokenizer files (tokenizer.json, or tokenizer_config.json with its "
            "vocabulary) beside it"
        )
    if tokenizer.vocab_size > expected:
        raise ValueError(
            f"the tokenizer in {source} is another model's ({tokenizer.vocab_size:,} tokens, the "
            f"model expects {expected:,}); put the model's own tokenizer files there"
        )
    if tokenizer.pad_token is None:  # GPT-like; padding is masked, so any token does
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token


def special_ids(tokenizer: SpecialTokens) -> list[int]:
    """Return the ids of the tokens put around a text; [UNK] is special too, but a word."""
    t = tokenizer
    ids = (t.cls_token_id, t.sep_token_id, t.bos_token_id, t.eos_token_id)
    return sorted({i for i in ids if i is not None})


def count_unknown(tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return the number of [UNK] in rows of ids, and of all tokens that are not special.

    A tokenizer of bytes knows every word.
    """
    special = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    tokens = [token for row in rows for token in row if token not in special]
    return sum(token == tokenizer.unk_token_id for token in tokens), len(tokens)


def check_max_words(max_words: int | None) -> None:
    """Raise ValueError if no word fits between the start and the end token."""
    if max_words is not None and max_words < 3:
        raise ValueError(f"max_words must be at least 3 (start, word, end), got {max_words}")


def check_embedding(embedding: bool | str) -> None:
    """Raise ValueError unless `embedding` is one of False, True and "beside"."""
    if embedding not in (False, True, "beside"):
        raise ValueError(f"embedding must be false, true or 'beside', got {embedding!r}")


def word_mask(input_ids: Tensor, attention_mask: Tensor, dropped: Sequence[int]) -> Tensor:
    """Return the mask (T, L) of real tokens less those whose id is in `dropped`."""
    mask = attention_mask.bool()
    if dropped:
        mask = mask & ~torch.isin(input_ids, torch.tensor(dropped, device=mask.device))
    return mask
