"""Two small encoders that train from scratch in minutes: for drawn scenes, and as examples.

Both show the protocols of `ascl_plugin.interfaces`; adapters have pretrained encoders.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ascl_plugin.features import ImageFeatures, TextFeatures

if TYPE_CHECKING:
    from PIL.Image import Image

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
PAD, UNKNOWN = 0, 1


class GridEncoder(nn.Module):
    """A convolutional encoder whose regions are the cells of a grid.

    Two convolutions make a cell of 16 x 16 pixels: patches of 6 x 6 that overlap, then 4 x 4 of
    those, each with a norm. To its own content a cell adds that of its eight neighbours, channel by
    channel, with weights that start at 0. On drawn scenes these two layers, which match templates,
    learn objects and their colours in a fraction of the steps that three take.

    Args:
        width: channels of a cell, D_v; a multiple of 8.
        grid: cells per side, K = grid^2. Pictures are resized to 16 * grid pixels per side.

    Shapes:
        pixel_values (I, 3, 16 grid, 16 grid) in [-1, 1] -> regions (I, K, D_v), pooled (I, D_v).
    """

    frozen = False

    def __init__(self, width: int = 128, grid: int = 6) -> None:
        super().__init__()
        if width % 8:
            raise ValueError(f"width of the grid encoder must be a multiple of 8, got {width}")
        self.grid = grid
        self.region_dim = self.pooled_dim = width
        # GroupNorm: unlike batch norm it is independent of the rest of the batch
        self.cells = nn.Sequential(
            nn.Conv2d(3, width // 2, 6, stride=4, padding=1, bias=False),
            nn.GroupNorm(4, width // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 2, width, 4, stride=4, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(inplace=True),
        )
        self.neighbours = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        nn.init.zeros_(self.neighbours.weight)
        self.position = nn.Parameter(torch.zeros(1, width, grid, grid))
        nn.init.normal_(self.position, std=0.02)

    def preprocess(self, picture: Image) -> Tensor:
        """Return a picture as pixels (3, S, S) in [-1, 1]."""
        side = 16 * self.grid
        if picture.size != (side, side):
            picture = picture.resize((side, side))
        pixels = np.asarray(picture, dtype=np.float32)
        return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1

    def forward(self, pixel_values: Tensor) -> ImageFeatures:
        """Return the cells of the grid, row by row, and their mean."""
        cells = self.cells(pixel_values)
        regions = cells + self.neighbours(cells) + self.position
        regions = regions.flatten(2).transpose(1, 2)
        return ImageFeatures(regions, None, regions.mean(1))


class WordTransformer(nn.Module):
    """A small transformer over the words of a vocabulary.

    A convolution over three words comes first, and is added: it ties "red" to the "car" behind it.
    Attention alone, whose places start small, did not learn that within the default run.

    Args:
        vocabulary: known words; all others share one id.
        width: D_w.
        layers, num_heads: sizes of the transformer.
        max_words: longer texts are cut.

    Shapes:
        input_ids (T, L), attention_mask (T, L) -> words (T, L, width).
    """

    frozen = False

    def __init__(
        self,
        vocabulary: Sequence[str],
        width: int = 128,
        layers: int = 1,
        num_heads: int = 4,
        max_words: int = 64,
    ) -> None:
        super().__init__()
        self.ids = {word: number for number, word in enumerate(vocabulary, start=2)}
        self.word_dim = width
        self.max_words = max_words
        self.embed = nn.Embedding(len(vocabulary) + 2, width, padding_idx=PAD)
        self.neighbours = nn.Conv1d(width, width, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(max_words, width))
        nn.init.normal_(self.position, std=0.02)
        layer = nn.TransformerEncoderLayer(
            width, num_heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        # the nested-tensor fast path of eval mode would shorten the padding away
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    @staticmethod
    def vocabulary(captions: Iterable[str], minimum: int = 1) -> list[str]:
        """Return words that occur at least `minimum` times, by frequency, then by alphabet."""
        counts = Counter(word for caption in captions for word in words_of(caption))
        kept = [word for word, count in counts.items() if count >= minimum]
        return sorted(kept, key=lambda word: (-counts[word], word))

    @classmethod
    def options_from(cls, captions: Iterable[Sequence[str]]) -> dict[str, list[str]]:
        """Return the options that training captions decide: the vocabulary."""
        return {"vocabulary": cls.vocabulary(c for several in captions for c in several)}

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask`; a text without a word is one unknown word."""
        rows = [
            [self.ids.get(w, UNKNOWN) for w in words_of(text)][: self.max_words] or [UNKNOWN]
            for text in texts
        ]
        ids = padded_ids(rows)
        return {"input_ids": ids, "attention_mask": ids != PAD}

    def count_unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        """Return the number of words outside the vocabulary, and of all."""
        words = [word for text in texts for word in words_of(text)]
        return sum(word not in self.ids for word in words), len(words)

    def count_cut(self, texts: Sequence[str]) -> int:
        """Return the number of texts that are longer than `max_words`."""
        return sum(len(words_of(text)) > self.max_words for text in texts)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Return words in context; padding is masked."""
        mask = attention_mask.bool()
        words = self.embed(input_ids)  # 0 for padding, as beyond the ends
        near = self.neighbours(words.transpose(1, 2)).relu().transpose(1, 2)
        words = words + near + self.position[: input_ids.shape[1]]
        return TextFeatures(self.layers(words, src_key_padding_mask=~mask), mask)


def words_of(text: str) -> list[str]:
    """Return the lower-case words of a text, without punctuation."""
    return _WORD.findall(text.lower())


def padded_ids(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return T lists of ids as (T, L) int64, padded with `PAD`; L is at least 1."""
    longest = max([1, *map(len, rows)])
    padded = [[*row, *[PAD] * (longest - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.int64).view(len(rows), longest)
