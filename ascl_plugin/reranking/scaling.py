"""Scores measured in the neighbourhood of the gallery item: mutual proximity and local scaling.

Both come from sets of one kind (Schnitzer, Flexer, Schedl, Widmer, JMLR 2012), where an item's
neighbours are items. Here a gallery item's are the queries of the bank, and a query's the gallery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ascl_plugin.reranking import statistics
from ascl_plugin.reranking.correction import BankMethod, Blocks, Correction, State
from ascl_plugin.reranking.options import check_choice, check_count, check_number
from ascl_plugin.scores import CHUNK_SCORES, contiguous


@dataclass(frozen=True, kw_only=True)
class MutualProximity(Correction):
    """Mutual proximity (Schnitzer et al., 2012, section 3.2), with independent distributions.

    P(X_q < s) * P(X_g < s) for s = s(q, g): the chance that s is above a score of the query with
    the gallery, times that it is above a score of the item with the bank. `distribution` is
    "gaussian", by mean and deviation, one pass; or "empirical", the share of scores below s, for
    which all scores of the bank are kept, sorted. The joint distribution of the paper needs a third
    item that has scores with both sides, which a query and a gallery of two kinds lack.
    """

    distribution: str = "gaussian"

    def __post_init__(self) -> None:
        check_choice("distribution", self.distribution, ("gaussian", "empirical"))

    def update(self, state: State, block: Tensor) -> State:
        """Return the statistics after a block of the bank."""
        if self.distribution == "gaussian":
            return statistics.sums(state, block)
        found = block.T if "scores" not in state else torch.cat([state["scores"], block.T], 1)
        return {"scores": found}

    def fit(self, blocks: Blocks) -> State:
        """Return the statistics of a whole bank."""
        if self.distribution == "gaussian":
            return super().fit(blocks)
        return {"scores": torch.cat([block.T for block in blocks()], 1)}

    def summary(self, state: State) -> State:
        """Return mean and deviation of each gallery item, or its scores in rising order."""
        if self.distribution == "gaussian":
            mean, deviation = statistics.moments(state)
            return {"mean": mean, "deviation": deviation}
        return {"sorted": statistics.rising(state["scores"]).T}

    @property
    def at_once(self) -> int:
        """Many rows where the sorted bank has to be gone through."""
        return super().at_once if self.distribution == "gaussian" else CHUNK_SCORES // 2

    def correct(self, summary: State, scores: Tensor) -> Tensor:
        """Return the logarithm of the product, or the product of both shares."""
        if self.distribution == "gaussian":
            own = scores - scores.mean(dim=1, keepdim=True)
            spread = own.square().mean(dim=1, keepdim=True).sqrt_()
            of_query = _log_normal(own, spread)
            return of_query.add_(_log_normal(scores - summary["mean"], summary["deviation"]))
        bank = summary["sorted"]
        own = _below(statistics.rising(scores), scores)
        if len(scores) == 1:  # no sorted copy of the whole bank is made for a single query
            found = (bank < scores).sum(dim=0)[None]
        else:
            found = _below(contiguous(bank.T), contiguous(scores.T)).T
        return own.to(scores) / scores.shape[1] * (found.to(scores) / len(bank))


@dataclass(frozen=True, kw_only=True)
class LocalScaling(Correction):
    """Local scaling (Zelnik-Manor and Perona, 2004) and its relative NICDM (Jegou et al., 2007).

    With the distance d(q, g) of unit vectors, d^2 = 2 (self_score - s): "gaussian" is
    exp(-d(q, g)^2 / (r(q) r(g))), r the distance to the neighbour number `neighbors`; "nicdm" is
    -d(q, g) / sqrt(r(q) r(g)), r the mean distance to the `neighbors` nearest. r(g) is over the
    bank; r(q) does not change the order. Hence both rank by (s - self_score) / r(g). `self_score`
    is the score of two equal items, 1 for cosines; scores above it count as it. One pass.
    """

    lists: ClassVar[bool] = True
    neighbors: int = 7
    scaling: str = "gaussian"
    self_score: float = 1.0

    def __post_init__(self) -> None:
        check_count("neighbors", self.neighbors)
        check_choice("scaling", self.scaling, ("gaussian", "nicdm"))
        check_number("self_score", self.self_score)

    def update(self, state: State, block: Tensor) -> State:
        """Return the statistics after a block of the bank."""
        return statistics.highest(state, block, self.neighbors)

    def summary(self, state: State) -> State:
        """Return r of each gallery item."""
        distance = (2 * (self.self_score - state["highest"])).clamp_min(0).sqrt()
        radius = distance[:, -1] if self.scaling == "gaussian" else distance.mean(dim=1)
        return {"radius": radius.clamp_min(1e-6)}

    def correct(self, summary: State, scores: Tensor) -> Tensor:
        """Return half the negative squared distances by r."""
        return (scores - self.self_score).clamp_max_(0).div_(summary["radius"])


def _log_normal(z: Tensor, deviation: Tensor) -> Tensor:
    """Return log P(X < z) of a normal distribution around 0, precise where P is near 1; fills z."""
    tiny = torch.finfo(z.dtype)
    z.div_(deviation.clamp_min(tiny.tiny) * 2**0.5)
    return z.erfc_().mul_(-0.5).clamp_min_(tiny.eps / 2 - 1).log1p_()


def _below(rising: Tensor, values: Tensor) -> Tensor:
    """Return how many of a row (N, M) are below each value of the row, (N, K)."""
    return torch.searchsorted(rising, values, out_int32=True)


mutual_proximity = BankMethod("mutual_proximity", MutualProximity)
local_scaling = BankMethod("local_scaling", LocalScaling)
