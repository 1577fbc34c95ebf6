"""Corrections by two banks: queries, and other items of the gallery's kind.

A bank of queries alone says how near the gallery is to queries; beside it, other gallery items (of
the training split) tell how crowded the place of a gallery item is, or take their own share of the
bank's queries. Both kinds come in one matrix, `other_items` says how many of its rows or columns
are other gallery items; with 0 the methods are those with one bank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ascl_plugin.ranking import top_candidates
from ascl_plugin.reranking import statistics
from ascl_plugin.reranking.correction import BankMethod, Blocks, Correction, State
from ascl_plugin.reranking.options import check_count, check_number
from ascl_plugin.scores import IN_CACHE


@dataclass(frozen=True, kw_only=True)
class Sinkhorn(Correction):
    """Sinkhorn normalisation (Pan et al., ACM MM 2025, arXiv 2508.02538).

    exp(s(b, g) / temperature) is scaled by rows and columns in turn, until every query of the bank
    and every gallery item has the same total; the result is s(q, g) + temperature * log v(g), v the
    scales of the gallery. The first iteration is `inverted_softmax`; the authors stop at 10. It
    assumes that queries spread evenly over the gallery. Each iteration is a pass over the bank.

    *Dual bank* (their DBSN): the last `other_items` columns of the bank are its scores with other
    gallery items, of the training split, which take their share of the queries, and get no bias.
    """

    temperature: float = 0.05
    iterations: int = 10
    other_items: int = 0

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)
        check_count("iterations", self.iterations)
        check_count("other_items", self.other_items, at_least=0)

    @property
    def other_columns(self) -> int:
        """Number of columns of a bank behind those of the gallery."""
        return self.other_items

    def fit(self, blocks: Blocks) -> State:
        """Return the potential of each gallery item, temperature * log v(g)."""
        state: State = {}
        for block in blocks():
            state = statistics.exponentials(state, block, self.temperature)
        potential = -statistics.soft_maximum(state, self.temperature)
        for _ in range(self.iterations - 1):
            total = torch.zeros_like(potential)
            for block in blocks():
                for rows in block.split(max(1, IN_CACHE // len(potential))):
                    # rows scaled to 1; no column vanishes, since each was scaled to 1 before
                    scaled = (rows + potential).mul_(1 / self.temperature).softmax(dim=1)
                    total += scaled.sum(dim=0)
            potential = potential - self.temperature * total.log()
        return {"potential": potential}

    def bias(self, state: State) -> Tensor:
        """Return the potentials of the gallery."""
        potential = state["potential"]
        return potential[: len(potential) - self.other_items]


@dataclass(frozen=True, kw_only=True)
class DBNorm(Correction):
    """Dual bank normalisation, dual inverted softmax (Wang, Jian, Xue, 2023, arXiv 2310.11612).

    exp(s(q, g) / t) / sum_b exp(s(b, g) / t) * exp(s(q, g) / t') / sum_o exp(s(o, g) / t'), with
    the temperature t and the gallery's temperature t', queries b and other gallery items o. The
    first `other_items` rows of the bank are the scores of the o with the gallery, of their own kind
    (image with image), the rows behind them those of the b. Without any o the second sum is 1. One
    pass.
    """

    temperature: float = 0.05
    gallery_temperature: float = 0.5
    other_items: int = 0

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)
        check_number("gallery_temperature", self.gallery_temperature, above=0)
        check_count("other_items", self.other_items, at_least=0)

    def update(self, state: State, block: Tensor) -> State:
        """Return the statistics after a block of the bank."""
        seen = int(state.get("rows", torch.tensor(0)))
        first = min(len(block), max(0, self.other_items - seen))
        result = state | {"rows": torch.tensor(seen + len(block))}
        for kind, rows, temperature in (
            ("other_", block[:first], self.gallery_temperature),
            ("query_", block[first:], self.temperature),
        ):
            if len(rows):
                found = self._statistics(_named(state, kind), rows, temperature)
                result |= {kind + name: value for name, value in found.items()}
        return result

    def _statistics(self, state: State, rows: Tensor, temperature: float) -> State:
        return statistics.exponentials(state, rows, temperature)

    def bias(self, state: State) -> Tensor:
        """Return minus both logarithms, in the units of a score."""
        query, other = self._logarithms(state)
        return -(query + other) / (1 / self.temperature + 1 / self.gallery_temperature)

    def _logarithms(self, state: State) -> tuple[Tensor, Tensor]:
        """Return the logarithms of both sums, (G,) each."""
        if "query_total" not in state:
            raise ValueError(
                f"dbnorm: other_items={self.other_items} leaves no query among the "
                f"{int(state['rows'])} rows of the bank"
            )
        query = statistics.soft_maximum(_named(state, "query_"), self.temperature)
        if not self.other_items:
            return query / self.temperature, torch.zeros_like(query)
        other = statistics.soft_maximum(_named(state, "other_"), self.gallery_temperature)
        return query / self.temperature, other / self.gallery_temperature


@dataclass(frozen=True, kw_only=True)
class DynamicDBNorm(DBNorm):
    """Dual bank normalisation, dual dynamic inverted softmax (Wang, Jian, Xue, 2023).

    As `dbnorm`, but a factor is s(q, g) itself for a query whose best item is not among the
    `activation_k` best of any row of that factor's bank, as in `qb_norm`. A query without either
    softmax keeps its order. Of one softmax alone, the product is meant for scores above zero.
    """

    activation_k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("activation_k", self.activation_k)

    def _statistics(self, state: State, rows: Tensor, temperature: float) -> State:
        found = super()._statistics(state, rows, temperature)
        return found | statistics.hubs(state, rows, self.activation_k)

    def summary(self, state: State) -> State:
        """Return the logarithms and the activation set of both banks."""
        query, other = self._logarithms(state)
        hubs = state["query_hubs"]
        return {
            "query": query, "other": other, "query_hubs": hubs,
            "other_hubs": state.get("other_hubs", torch.zeros_like(hubs)),
        }  # fmt: skip

    def correct(self, summary: State, scores: Tensor) -> Tensor:
        """Return the product of both factors, a logarithm where both are a softmax."""
        best = top_candidates(scores, 1)
        query, other = (summary[f"{kind}_hubs"][best] for kind in ("query", "other"))
        soft_query = scores / self.temperature - summary["query"]
        soft_other = scores / self.gallery_temperature - summary["other"]
        one = torch.where(query, soft_query, soft_other)
        mixed = scores * (one - one.amax(dim=1, keepdim=True)).exp()  # scaled by row
        values = torch.where(query | other, mixed, scores)
        return torch.where(query & other, soft_query + soft_other, values)


def _named(state: State, kind: str) -> State:
    return {name.removeprefix(kind): v for name, v in state.items() if name.startswith(kind)}


sinkhorn = BankMethod("sinkhorn", Sinkhorn)
dbnorm = BankMethod("dbnorm", DBNorm)
dbnorm_dynamic = BankMethod("dbnorm_dynamic", DynamicDBNorm)
