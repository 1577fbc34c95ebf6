"""Words by name beside a text encoder: a learned bag, or latent semantics of training captions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from ascl_plugin.retrieval.encoders import WordTransformer, padded_ids, words_of

LEXICAL = ("none", "bag", "lsa")
REMEMBERED = 2**18  # texts whose ids are kept
CAPTIONS = 100_000  # that latent semantics are fitted on, at most


class _Lexical(nn.Module):
    """Base of both: known words have numbers from 1."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        super().__init__()
        if not vocabulary:
            raise ValueError("lexical: the vocabulary is empty; take a lower lexical_minimum")
        self.numbers = {word: number for number, word in enumerate(vocabulary, start=1)}
        self._seen: dict[str, list[int]] = {}

    def ids(self, texts: Sequence[str]) -> Tensor:
        """Return `lexical_ids` (T, L) int64 of strings, padded with 0; L is at least 1."""
        return padded_ids([self._ids_of(text) for text in texts])

    def _ids_of(self, text: str) -> list[int]:
        found = self._seen.get(text)
        if found is None:
            found = [self.numbers[word] for word in words_of(text) if word in self.numbers]
            if len(self._seen) < REMEMBERED:
                self._seen[text] = found
        return found


def vocabulary_of(captions: Iterable[Sequence[str]], minimum: int = 2) -> list[str]:
    """Return the words that occur at least `minimum` times in the captions of all images."""
    return WordTransformer.vocabulary((c for several in captions for c in several), minimum)


class BagOfWords(_Lexical):
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
        super().__init__(vocabulary)
        if not 0 <= word_dropout < 1:
            raise ValueError(f"lexical: word_dropout must be in [0, 1), got {word_dropout}")
        self.word_dropout = word_dropout
        self.embed = nn.EmbeddingBag(len(vocabulary) + 1, dim, mode="sum", padding_idx=0)
        with torch.no_grad():
            self.embed.weight.mul_(0.02)

    def forward(self, lexical_ids: Tensor) -> Tensor:
        """Return the bags."""
        if self.training and self.word_dropout:
            dropped = torch.rand(lexical_ids.shape, device=lexical_ids.device) < self.word_dropout
            lexical_ids = lexical_ids.masked_fill(dropped, 0)
        known = (lexical_ids != 0).sum(1, keepdim=True).clamp_min(1)
        return self.embed(lexical_ids) / known.sqrt()

    if TYPE_CHECKING:
        __call__ = forward  # torch's own returns Any


class LatentSemantics(_Lexical):
    """Latent semantics of a text's known words (LSA; Deerwester et al., 1990), fixed once fitted.

    A text is the bag of its words, each once, weighted by log(N / captions with the word) and
    scaled to length 1; its vector is the projection on the first right singular vectors of the N
    training captions' bags. A linear layer on it, after `input_norm`, knows words by name: what
    a frozen sentence encoder blurs.

    Args:
        vocabulary: known words; others have no part.
        dim: number of singular vectors, at most one less than words.

    Buffers:
        weights: (V + 1,); vectors: (V + 1, dim); row 0 is padding. Saved with a model.

    Shapes:
        lexical_ids (T, L), padded with 0 -> (T, dim); 0 for a text without a known word.

    Raises:
        ValueError: no vocabulary, or one too small for `dim`.
    """

    weights: Tensor
    vectors: Tensor

    def __init__(self, vocabulary: Sequence[str], dim: int = 512) -> None:
        super().__init__(vocabulary)
        if not 0 < dim < len(vocabulary):
            raise ValueError(
                f"lexical: dim must be 1 to {len(vocabulary) - 1}, one less than the words that "
                f"occur often enough; got {dim}"
            )
        self.dim = dim
        self.register_buffer("weights", torch.zeros(len(vocabulary) + 1))
        self.register_buffer("vectors", torch.zeros(len(vocabulary) + 1, dim))

    @torch.no_grad()
    def fit(self, captions: Iterable[Sequence[str]]) -> None:
        """Take weights and vectors from the training captions; of more than `CAPTIONS`, a sample.

        Raises:
            ValueError: fewer captions than `dim`.
        """
        bags = [self._ids_of(text) for several in captions for text in several]
        bags = bags[:: math.ceil(len(bags) / CAPTIONS) or 1]
        if len(bags) < self.dim:
            raise ValueError(f"lexical: {len(bags)} captions for {self.dim} dimensions")
        counts = Counter(number for bag in bags for number in bag)
        for number, count in counts.items():
            self.weights[number] = math.log(len(bags) / count)
        rows = torch.tensor([row for row, bag in enumerate(bags) for _ in bag])
        columns = torch.tensor([number for bag in bags for number in bag])
        values = self.weights[columns].double()
        lengths = torch.zeros(len(bags), dtype=torch.float64).index_add(0, rows, values.square())
        values /= lengths.sqrt().clamp_min(1e-12)[rows]
        shape = len(bags), len(self.weights)
        places = torch.stack([rows, columns])
        matrix = torch.sparse_coo_tensor(places, values, shape, check_invariants=True)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            matrix = matrix.float().coalesce()
            spare = min(self.dim + 32, min(shape))  # sharpens the last of the vectors
            _, _, vectors = torch.svd_lowrank(matrix, q=spare, niter=4)
        self.vectors.copy_(vectors[:, : self.dim])

    def _ids_of(self, text: str) -> list[int]:
        return list(dict.fromkeys(super()._ids_of(text)))

    def forward(self, lexical_ids: Tensor) -> Tensor:
        """Return the vectors of the texts."""
        weights = self.weights[lexical_ids]
        lengths = weights.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
        return embedding_bag(
            lexical_ids, self.vectors, mode="sum", per_sample_weights=weights / lengths
        )

    if TYPE_CHECKING:
        __call__ = forward  # torch's own returns Any
