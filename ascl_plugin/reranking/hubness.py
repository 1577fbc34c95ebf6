"""Hubness reduction: lower the scores of gallery items that score high with queries at large.

A direction has queries and a gallery: images and texts for I2T, texts and images for T2I. The
equations are for a score s(q, g) and a *bank* of queries b, whose scores s(b, g) show how much of a
hub g is. The bank can be other queries (of the training split); without one it is the queries under
test, and the method is transductive.

Factors that are the same for a whole query do not change its order and are left out. Arithmetic is
in float32, in float64 for float64, in chunks. Measured with csls, qb_norm, nnn and dual_softmax:
5,000 x 25,000 float32 scores take 1.2 to 1.5 GiB beside them, 0.9 of which are the two results, and
22 to 24 seconds on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ascl_plugin.ranking import top_candidates
from ascl_plugin.reranking.options import check_count, check_number
from ascl_plugin.reranking.reorder import reorder_rows, widened
from ascl_plugin.scores import row_chunks

# scores of one direction (Q, G), its bank (B, G), where its result goes (Q, G)
Direction = Callable[[Tensor, Tensor, Tensor], object]


def none(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return two copies of the scores: the baseline of a comparison."""
    kept = torch.contiguous_format
    return scores.clone(memory_format=kept), scores.clone(memory_format=kept)


def inverted_softmax(
    scores: Tensor,
    *,
    temperature: float = 0.05,
    bank_i2t: Tensor | None = None,
    bank_t2i: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Rank by the softmax over the queries instead of the gallery (Smith et al., ICLR 2017).

    P(q, g) = exp(s(q, g) / temperature) / sum_b exp(s(b, g) / temperature), their inverted softmax
    with beta = 1 / temperature. Computed as a logarithm, so that no score overflows.
    """
    check_number("temperature", temperature, above=0)
    offset = partial(_soft_maximum, temperature=temperature)
    return _both(scores, bank_i2t, bank_t2i, partial(_subtract_offset, offset=offset))


def dual_softmax(scores: Tensor, *, temperature: float = 0.05) -> tuple[Tensor, Tensor]:
    """Rank by the score times its softmax over the queries (Cheng et al., CAMoE, 2021).

    s(q, g) * exp(s(q, g) / temperature) / sum_b exp(s(b, g) / temperature), b over the queries
    under test (DSL at inference). The equation is meant for scores above zero: of two equal
    negative scores it prefers the one with the smaller softmax.
    """
    check_number("temperature", temperature, above=0)

    def direction(queries: Tensor, bank: Tensor, result: Tensor) -> None:
        offset = _of_gallery(bank, partial(_soft_maximum, temperature=temperature))

        def values(chunk: Tensor, _: slice) -> Tensor:
            return chunk * ((chunk - offset) / temperature).exp()

        reorder_rows(queries, result, values)

    return _both(scores, None, None, direction)


def csls(
    scores: Tensor,
    *,
    neighbors: int = 10,
    bank_i2t: Tensor | None = None,
    bank_t2i: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Rank by cross-domain similarity local scaling (Conneau et al., ICLR 2018, section 2.3).

    2 s(q, g) - r(q) - r(g), r(g) the mean of the `neighbors` highest s(b, g) over the bank; r(q)
    is the same for a whole query. Half of it is `nnn` with alpha = 1/2.
    """
    return nnn(scores, alpha=0.5, neighbors=neighbors, bank_i2t=bank_i2t, bank_t2i=bank_t2i)


def nnn(
    scores: Tensor,
    *,
    alpha: float = 0.75,
    neighbors: int = 16,
    bank_i2t: Tensor | None = None,
    bank_t2i: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Rank by nearest neighbour normalisation (Chowdhury, Wang et al., EMNLP 2024).

    s(q, g) - alpha * b(g), b(g) the mean of the `neighbors` highest s(b, g) over the bank. Choose
    both options on a validation split, as the paper does.
    """
    check_number("alpha", alpha, at_least=0)
    check_count("neighbors", neighbors)
    offset = partial(_mean_of_highest, count=neighbors, weight=alpha)
    return _both(scores, bank_i2t, bank_t2i, partial(_subtract_offset, offset=offset))


def qb_norm(
    scores: Tensor,
    *,
    temperature: float = 0.05,
    activation_k: int = 1,
    bank_i2t: Tensor | None = None,
    bank_t2i: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Rank by querybank normalisation, dynamic inverted softmax (Bogolin et al., CVPR 2022).

    The activation set holds every gallery item among the `activation_k` best of any query of the
    bank. A query whose best item is in the set is ordered by the inverted softmax over the bank,
    any other keeps its order. The paper's beta = 20 and k = 1 are the defaults.
    """
    check_number("temperature", temperature, above=0)
    check_count("activation_k", activation_k)

    def direction(queries: Tensor, bank: Tensor, result: Tensor) -> None:
        offset = _of_gallery(bank, partial(_soft_maximum, temperature=temperature))
        active = torch.zeros(bank.shape[1], dtype=torch.bool, device=bank.device)
        for rows in row_chunks(*bank.shape):
            active[top_candidates(bank[rows].contiguous(), min(activation_k, len(active)))] = True

        def values(chunk: Tensor, _: slice) -> Tensor:
            return torch.where(active[top_candidates(chunk, 1)], chunk - offset, chunk)

        reorder_rows(queries, result, values)

    return _both(scores, bank_i2t, bank_t2i, direction)


def _both(
    scores: Tensor, bank_i2t: Tensor | None, bank_t2i: Tensor | None, direction: Direction
) -> tuple[Tensor, Tensor]:
    i2t, t2i = scores.new_empty(scores.shape), scores.new_empty(scores.shape)
    direction(scores, scores if bank_i2t is None else bank_i2t, i2t)
    direction(scores.T, (scores if bank_t2i is None else bank_t2i).T, t2i.T)
    return i2t, t2i


def _subtract_offset(
    queries: Tensor, bank: Tensor, result: Tensor, offset: Callable[[Tensor], Tensor]
) -> None:
    subtracted = _of_gallery(bank, offset)
    reorder_rows(queries, result, lambda chunk, _: chunk - subtracted)


def _of_gallery(bank: Tensor, offset: Callable[[Tensor], Tensor]) -> Tensor:
    """Return (G,): `offset`, (C, B) -> (C,), of each gallery item's scores with the bank (B, G)."""
    columns = row_chunks(bank.shape[1], bank.shape[0])
    return torch.cat([offset(widened(bank[:, chunk].T.contiguous())) for chunk in columns])


def _soft_maximum(scores: Tensor, temperature: float) -> Tensor:
    """Return temperature * log sum exp(scores / temperature) over the last axis."""
    highest = scores.amax(dim=1, keepdim=True)
    total = ((scores - highest) / temperature).exp().sum(dim=1)
    return highest[:, 0] + temperature * total.log()


def _mean_of_highest(scores: Tensor, count: int, weight: float) -> Tensor:
    return weight * scores.topk(min(count, scores.shape[1]), dim=1).values.mean(dim=1)
