"""One score of a text from the scores of its words: their mean, or nearer to the lowest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

WORD_POOLINGS = ("mean", "softmin", "mean_softmin")


class WordPooling(nn.Module):
    """The word side of a local score: x_j, the cosine of word j with its image, over real words.

    ::

        mean          m = mean_j x_j                                  the papers'
        softmin       s = sum_j x_j softmax_j(-x_j / t)               a text is as true as its
                                                                      weakest word, as t -> 0
        mean_softmin  m + a (s - m),  a learned, 0 at the start       any real number

    Args:
        kind: one of `WORD_POOLINGS`.
        temperature: t, above 0; as t grows s goes to m.

    Shapes:
        x (..., L), shares of the mean (..., L), 0 for padding -> (...).

    Raises:
        ValueError: an unknown kind, or a temperature that is not in (0, inf).
    """

    def __init__(self, kind: str = "mean", temperature: float = 0.1) -> None:
        super().__init__()
        if kind not in WORD_POOLINGS:
            raise ValueError(
                f"word_pooling must be one of {', '.join(WORD_POOLINGS)}, got {kind!r}"
            )
        if not 0 < temperature < math.inf:
            raise ValueError(f"softmin_temperature must be in (0, inf), got {temperature}")
        self.kind = kind
        self.temperature = temperature
        if kind == "mean_softmin":
            self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, shares: Tensor, scale: float = 1.0) -> Tensor:
        """Return the pooled x; `scale` is the factor that x has more than a cosine."""
        if self.kind == "mean":
            return (x * shares).sum(-1)
        real = shares > 0
        logits = (x / (-self.temperature * scale)).masked_fill(~real, torch.finfo(x.dtype).min)
        lowest = (x * torch.softmax(logits, -1) * real).sum(-1)
        if self.kind == "softmin":
            return lowest
        mean = (x * shares).sum(-1)
        return mean + self.weight * (lowest - mean)

    if TYPE_CHECKING:
        __call__ = forward  # torch's own returns Any
