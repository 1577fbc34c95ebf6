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


def special_ids(tokenizer: SpecialTokens) -> list[int]:
    """Return the ids of the tokens put around a text; [UNK] is special too, but a word."""
    t = tokenizer
    ids = (t.cls_token_id, t.sep_token_id, t.bos_token_id, t.eos_token_id)
    return sorted({i for i in ids if i is not None})


def check_max_words(max_words: int | None) -> None:
    """Raise ValueError if no word fits between the start and the end token."""
    if max_words is not None and max_words < 3:
        raise ValueError(f"max_words must be at least 3 (start, word, end), got {max_words}")


def word_mask(input_ids: Tensor, attention_mask: Tensor, dropped: Sequence[int]) -> Tensor:
    """Return the mask (T, L) of real tokens less those whose id is in `dropped`."""
    mask = attention_mask.bool()
    if dropped:
        mask = mask & ~torch.isin(input_ids, torch.tensor(dropped, device=mask.device))
    return mask
