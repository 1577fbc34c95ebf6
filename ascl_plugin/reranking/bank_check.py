"""Hubness of a gallery before and after a correction, on queries without labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ascl_plugin.ranking import top_candidates


@dataclass(frozen=True)
class BankCheck:
    """Hubness before and after.

    Args:
        skew_before, skew_after: skewness of the k-occurrence, the number of queries that have a
            gallery item among their first k: 0 without hubs, 1 or more where a few items are found
            by many queries.
        found_before, found_after: share of the gallery that is among the first k of any query.
    """

    skew_before: float
    skew_after: float
    found_before: float
    found_after: float


def compare_occurrence(before: Tensor, after: Tensor, k: int) -> BankCheck:
    """Compare two matrices of scores (Q, G) of the same queries and gallery."""
    counts = [occurrence(scores, k) for scores in (before, after)]
    return BankCheck(
        *(skewness(c) for c in counts), *(float((c > 0).double().mean()) for c in counts)
    )


def occurrence(scores: Tensor, k: int) -> Tensor:
    """Return how many queries (rows) have each gallery item among their first k, (G,) int64."""
    first = top_candidates(scores, min(k, scores.shape[1]))
    return first.flatten().bincount(minlength=scores.shape[1])


def skewness(counts: Tensor) -> float:
    """Return the third standardised moment of counts, 0 where all are equal."""
    centred = counts.double() - counts.double().mean()
    spread = centred.square().mean().sqrt()
    return float(centred.pow(3).mean() / spread.pow(3)) if spread > 0 else 0.0
