"""Hubness reduction: lower the scores of gallery items that score high with queries at large.

Each is a correction by a bank of queries, see `ascl_plugin.reranking.correction`. The equations are
for a score s(q, g) and queries b of the bank, whose scores s(b, g) show how much of a hub g is. The
bank can be other queries (of the training split); in `rerank`, without one, it is the queries under
test, and the method is transductive.

Factors that are the same for a whole query do not change its order and are left out. Arithmetic is
in float32, in float64 for float64, in chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ascl_plugin.ranking import top_candidates
from ascl_plugin.reranking import statistics
from ascl_plugin.reranking.correction import BankMethod, Correction, State
from ascl_plugin.reranking.options import check_count, check_number


def none(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return two copies of the scores: the baseline of a comparison."""
    kept = torch.contiguous_format
    return scores.clone(memory_format=kept), scores.clone(memory_format=kept)


@dataclass(frozen=True, kw_only=True)
class InvertedSoftmax(Correction):
    """The softmax over the queries instead of the gallery (Smith et al., ICLR 2017).

    P(q, g) = exp(s(q, g) / temperature) / sum_b exp(s(b, g) / temperature), their inverted softmax
    with beta = 1 / temperature. Computed as a logarithm, so that no score overflows, times the
    temperature: s(q, g) - temperature * log sum_b exp(s(b, g) / temperature).
    """

    temperature: float = 0.05

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)

    def update(self, state: State, block: Tensor) -> State:
        """Return the statistics after a block of the bank."""
        return statistics.exponentials(state, block, self.temperature)

    def bias(self, state: State) -> Tensor:
        """Return minus the soft maximum of each gallery item."""
        return -statistics.soft_maximum(state, self.temperature)


@dataclass(frozen=True, kw_only=True)
class DualSoftmax(InvertedSoftmax):
    """The score times its softmax over the queries (Cheng et al., CAMoE, 2021).

    s(q, g) * exp(s(q, g) / temperature) / sum_b exp(s(b, g) / temperature); in the paper b runs
    over the queries under test (DSL at inference). The equation is meant for scores above zero: of
    two equal negative scores it prefers the one with the smaller softmax.
    """

    def correct(self, summary: State, scores: Tensor) -> Tensor:
        """Return the scores times their softmax."""
        return scores * ((scores + summary["bias"]) / self.temperature).exp()


@dataclass(frozen=True, kw_only=True)
class NNN(Correction):
    """Nearest neighbour normalisation (Chowdhury, Wang et al., EMNLP 2024).

    s(q, g) - alpha * b(g), b(g) the mean of the `neighbors` highest s(b, g) over the bank. Choose
    both options on a validation split, as the paper does.
    """

    alpha: float = 0.75
    neighbors: int = 16

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, at_least=0)
        check_count("neighbors", self.neighbors)

    def update(self, state: State, block: Tensor) -> State:
        """Return the statistics after a block of the bank."""
        return statistics.highest(state, block, self.neighbors)

    def bias(self, state: State) -> Tensor:
        """Return -alpha times the mean of the highest scores of each gallery item."""
        return -self.alpha * state["highest"].mean(dim=1)


@dataclass(frozen=True, kw_only=True)
class CSLS(Correction):
    """Cross-domain similarity local scaling (Conneau et al., ICLR 2018, section 2.3).

    2 s(q, g) - r(q) - r(g), r(g) the mean of the `neighbors` highest s(b, g) over the bank; r(q)
    is the same for a whole query. Half of it is `nnn` with alpha = 1/2.
    """

    neighbors: int = 10

    def __post_init__(self) -> None:
        check_count("neighbors", self.neighbors)

    def update(self, state: State, block: Tensor) -> State:
        """Return the statistics after a block of the bank."""
        return statistics.highest(state, block, self.neighbors)

    def bias(self, state: State) -> Tensor:
        """Return -r(g) / 2."""
        return -0.5 * state["highest"].mean(dim=1)


@dataclass(frozen=True, kw_only=True)
class QBNorm(InvertedSoftmax):
    """Querybank normalisation, dynamic inverted softmax (Bogolin et al., CVPR 2022).

    The activation set holds every gallery item among the `activation_k` best of any query of the
    bank. A query whose best item is in the set is ordered by the inverted softmax over the bank,
    any other keeps its order. The paper's beta = 20 and k = 1 are the defaults.
    """

    activation_k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("activation_k", self.activation_k)

    def update(self, state: State, block: Tensor) -> State:
        """Return the statistics after a block of the bank."""
        return super().update(state, block) | statistics.hubs(state, block, self.activation_k)

    def summary(self, state: State) -> State:
        """Return the inverted softmax's bias and the activation set."""
        return {"bias": self.bias(state), "hubs": state["hubs"]}

    def correct(self, summary: State, scores: Tensor) -> Tensor:
        """Return the corrected scores of queries whose best item is a hub, the others' as given."""
        active = summary["hubs"][top_candidates(scores, 1)]
        return torch.where(active, scores + summary["bias"], scores)


inverted_softmax = BankMethod("inverted_softmax", InvertedSoftmax)
dual_softmax = BankMethod("dual_softmax", DualSoftmax)
nnn = BankMethod("nnn", NNN)
csls = BankMethod("csls", CSLS)
qb_norm = BankMethod("qb_norm", QBNorm)
