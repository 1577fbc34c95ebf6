"""A learned bag of words beside a text encoder: names that a frozen encoder blurs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ascl_plugin.retrieval.encoders import WordTransformer, words_of

REMEMBERED = 2**18  # texts whose ids are kept


class BagOfWords(nn.Module):
    """The sum of the vectors of a text's known words, over the root of their number.

    Args:
        vocabulary: known words; others have no part.
        dim: width D.
        word_dropout: probability that training leaves a word out, in [0, 1).

    Shapes:
        lexical_ids (T, L), padded with 0 -> (T, D); 0 for a text without a known word.

    Raises:
        ValueError: no vocabulary, or word_dropout out of its range.
    """

    def __init__(self, vocabulary: Sequence[str], dim: int, word_dropout: float = 0.0) -> None:
        super().__init__()
        if not vocabulary:
            raise ValueError("lexical: the vocabulary is empty; take a lower lexical_minimum")
        if not 0 <= word_dropout < 1:
            raise ValueError(f"lexical: word_dropout must be in [0, 1), got {word_dropout}")
        self.word_dropout = word_dropout
        self.numbers = {word: number for number, word in enumerate(vocabulary, start=1)}
        self.embed = nn.EmbeddingBag(len(vocabulary) + 1, dim, mode="sum", padding_idx=0)
        with torch.no_grad():
            self.embed.weight.mul_(0.02)
        self._seen: dict[str, list[int]] = {}

    @staticmethod
    def options_from(captions: Iterable[Sequence[str]], minimum: int = 2) -> dict[str, list[str]]:
        """Return the vocabulary: words that occur at least `minimum` times in training captions."""
        every = (caption for several in captions for caption in several)
        return {"vocabulary": WordTransformer.vocabulary(every, minimum)}

    def ids(self, texts: Sequence[str]) -> Tensor:
        """Return `lexical_ids` (T, L) int64 of strings, padded with 0; L is at least 1."""
        rows = [self._ids_of(text) for text in texts]
        found = torch.zeros(len(rows), max([1, *map(len, rows)]), dtype=torch.int64)
        for row, numbers in enumerate(rows):
            found[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        return found

    def _ids_of(self, text: str) -> list[int]:
        found = self._seen.get(text)
        if found is None:
            found = [self.numbers[word] for word in words_of(text) if word in self.numbers]
            if len(self._seen) < REMEMBERED:
                self._seen[text] = found
        return found

    def forward(self, lexical_ids: Tensor) -> Tensor:
        """Return the bags."""
        if self.training and self.word_dropout:
            dropped = torch.rand(lexical_ids.shape, device=lexical_ids.device) < self.word_dropout
            lexical_ids = lexical_ids.masked_fill(dropped, 0)
        known = (lexical_ids != 0).sum(1, keepdim=True).clamp_min(1)
        return self.embed(lexical_ids) / known.sqrt()

    if TYPE_CHECKING:
        __call__ = forward  # torch's own returns Any
