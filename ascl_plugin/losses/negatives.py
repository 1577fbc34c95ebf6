"""Generated negatives beside the right pairs they were made for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ascl_plugin.features import wide
from ascl_plugin.losses.contrast import contrast_terms, shares

TIE = 1e-5  # share of a score by which another must be higher to count as higher


def beaten(right: Tensor, negatives: Tensor) -> Tensor:
    """Return (P, M), True where a negative scores above its row's right score, `right` (P,).

    A tie is no defeat: a shuffled caption often scores exactly as the caption does, and rounding
    must not decide if it counts.
    """
    right = right.detach()[:, None]
    return negatives.detach() > right + TIE * right.abs().clamp(min=1)


@dataclass(frozen=True)
class Negatives:
    """Generated negatives of P pairs.

    Attributes:
        scores: (R, M); those that do not count are 0.
        counted: (R, M), False for those that are not there or left by the alpha rule.
        row: (P,), the row of each pair; None if row p is pair p's.
    """

    scores: Tensor
    counted: Tensor
    row: Tensor | None = None

    @classmethod
    def of(
        cls, block: Tensor, right: Tensor, row: Tensor | None = None, violations: str = "drop"
    ) -> Negatives:
        """Return the negatives of pairs with the scores `right` (P,).

        Args:
            block: (R, M), scores; -inf where there is no negative.
            right: scores of the pairs.
            row: as the attribute.
            violations: "drop" leaves out negatives that beat their pair, "keep" does not.
        """
        block = wide(block)
        if violations == "drop" and row is not None:
            block, row = block.index_select(0, row), None
        counted = block.detach() != -torch.inf
        if violations == "drop":
            counted &= ~beaten(right, block)
        # an infinity over a learned temperature would give that a gradient of nan
        return cls(block.masked_fill(~counted, 0), counted, row)

    def log_sum(self, temperature: float | Tensor, margin: float, weight: float) -> Tensor:
        """Return (P,), log of weight * sum_m e^((s_m + margin) / temperature)."""
        logits = (self.scores + margin if margin else self.scores) / temperature
        sums = logits.masked_fill(~self.counted, -torch.inf).logsumexp(1) + math.log(weight)
        return sums if self.row is None else sums[self.row]

    def sigmoid_sum(
        self, temperature: float | Tensor, bias: float | Tensor, margin: float
    ) -> Tensor:
        """Return (P,), sum_m -log sigmoid(-((s_m + margin) / temperature + bias))."""
        losses = softplus((self.scores + margin) / temperature + bias)
        sums = losses.masked_fill(~self.counted, 0).sum(1)
        return sums if self.row is None else sums[self.row]

    def contrast(
        self,
        right: Tensor,
        weight: Tensor,
        temperature: float | Tensor,
        margin: float,
        focal: float,
    ) -> Tensor:
        """Return (P,), whose mean is `contrast_loss` of each negative and its pair; one row a pair.

        Args:
            right: (P,), scores of the pairs.
            weight: (P,), weights of the pairs.
            temperature, margin, focal: as `contrast_loss`.
        """
        terms = contrast_terms(right[:, None], self.scores, temperature, margin, focal)
        return (terms * shares(weight[:, None] * self.counted)).sum(1) * len(right)
