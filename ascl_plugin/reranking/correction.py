"""The contract of a method that corrects scores by a bank of queries, and its two forms.

A direction has queries and a gallery: images and texts for I2T, texts and images for T2I. A
*correction* looks at the scores s(b, g) of a *bank* of queries b, keeps a few numbers of each
gallery item g, and with them corrects the scores s(q, g) of any query q, without looking at another
query. It is written once, as a frozen dataclass whose fields are its options:

    @dataclass(frozen=True, kw_only=True)
    class LessMean(Correction):
        '''Rank by s(q, g) - alpha * mean of s(b, g) over the bank.'''

        alpha: float = 1.0

        def __post_init__(self) -> None:             # refuse bad options here
            check_number("alpha", self.alpha, at_least=0)

        def update(self, state: State, block: Tensor) -> State:
            total, count = state.get("total", 0), state.get("count", 0)
            return {"total": total + block.sum(0), "count": count + block.new_tensor(len(block))}

        def bias(self, state: State) -> Tensor:
            return -self.alpha * state["total"] / state["count"]

    less_mean = BankMethod("less_mean", LessMean)    # the function for `rerank`

Registered as ``"less_mean": "...:less_mean"`` (or by ``register("rerank", "less_mean")``) it works

* in ``rerank(sim, method="less_mean", alpha=.5)``: the bank is the queries themselves, which is
  transductive, or `bank_i2t` and `bank_t2i`;
* in ``Reranker("less_mean", alpha=.5)``: fitted once, by blocks, saved, applied to any query.

Members, each with a default unless said:

* ``update(state, block)``: statistics after a block of bank rows (C, G), float32 or float64.
  `state` is a dict of tensors, ``{}`` at the start; return a new dict, and do not change the old
  one's tensors. Blocks of any size give the same statistics. Shared ones are in
  `ascl_plugin.reranking.statistics`. Without it the method cannot `partial_fit`.
* ``fit(blocks)``: statistics of a whole bank; a loop of `update`. Override it where several passes
  are needed: each call of ``blocks()`` starts a pass over the same blocks in the same order.
* ``bias(state)``: (G,), for an additive method: its corrected score is s(q, g) + bias(g). Only
  these have `gallery_bias` and `augment_gallery`.
* ``summary(state)``: the tensors that `correct` reads and `Reranker.save` writes, each with G as
  its last axis; ``{"bias": bias(state)}``. Override it, together with `correct`, where the method
  is not additive.
* ``other_columns``: number of columns of a bank that are no gallery items; not in `summary`.
* ``correct(summary, scores)``: new scores (Q, G), higher first. Each row depends on itself alone.
* ``lists = True``: the statistics are those of each item's highest scores, so that the item's own
  list can serve as its bank in `rerank_candidates`. `correct` then also gets a summary of
  candidates, (Q, K) beside scores (Q, K).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ascl_plugin.reranking.options import options_of
from ascl_plugin.reranking.reorder import reorder_rows, widened
from ascl_plugin.scores import IN_CACHE, contiguous

State = dict[str, Tensor]
Blocks = Callable[[], Iterator[Tensor]]

# Scores of the bank processed at once: 64 MB of float32. Larger than a chunk of results, so that a
# product with a million vectors has enough rows to be bound by arithmetic.
BLOCK_SCORES = 2**24


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Base of a correction; its fields are its options. See this module for the contract."""

    lists: ClassVar[bool] = False

    def update(self, state: State, block: Tensor) -> State:
        """Return the statistics after a block of the bank, (C, G)."""
        raise NotImplementedError

    def fit(self, blocks: Blocks) -> State:
        """Return the statistics of a bank."""
        state: State = {}
        for block in blocks():
            state = self.update(state, block)
            del block  # before the next is made
        return state

    def bias(self, state: State) -> Tensor:
        """Return the numbers that are added to each gallery item's scores, (G,)."""
        raise NotImplementedError

    def summary(self, state: State) -> State:
        """Return the tensors that `correct` reads."""
        return {"bias": self.bias(state)}

    def correct(self, summary: State, scores: Tensor) -> Tensor:
        """Return the corrected scores of queries, (Q, G)."""
        return scores + summary["bias"]

    @property
    def other_columns(self) -> int:
        """Number of columns of a bank behind those of the gallery."""
        return 0

    @property
    def at_once(self) -> int:
        """Number of scores that `rerank` gives `correct` at once, on a CPU."""
        return IN_CACHE

    @classmethod
    def streams(cls) -> bool:
        """Return True if statistics come from one pass over the bank."""
        return cls.update is not Correction.update

    @classmethod
    def additive(cls) -> bool:
        """Return True if correcting means adding `bias`."""
        return cls.correct is Correction.correct


class BankMethod:
    """The form of a correction that `rerank` calls: both directions of one matrix.

    Its options are those of the correction, and `bank_i2t` (B, T) and `bank_t2i` (I, B'), scores of
    other queries with the same gallery; without them the bank of a direction is its own queries.

    Args:
        name: the name of the method in results.
        correction: the class.
    """

    def __init__(self, name: str, correction: type[Correction]) -> None:
        self.correction = correction
        self.__name__ = name
        self.__doc__ = correction.__doc__
        keyword = partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter("scores", inspect.Parameter.POSITIONAL_ONLY),
                *(
                    keyword(name, default=default)
                    for name, default in options_of(correction).items()
                ),
                *(keyword(name, default=None) for name in ("bank_i2t", "bank_t2i")),
            ]
        )

    def __call__(
        self,
        scores: Tensor,
        /,
        *,
        bank_i2t: Tensor | None = None,
        bank_t2i: Tensor | None = None,
        **options: object,
    ) -> tuple[Tensor, Tensor]:
        """Return both directions re-ranked, each (I, T)."""
        correction = self.correction(**options)
        if correction.other_columns and (bank_i2t is None or bank_t2i is None):
            raise ValueError(f"rerank: {self.__name__}: other_items needs bank_i2t and bank_t2i")
        i2t = torch.empty_like(scores, memory_format=torch.contiguous_format)
        by_text = contiguous(scores.T)  # (T, I), a copy, then the result
        if scores.T.is_contiguous():
            by_text = by_text.clone()
        for queries, bank, result in (
            (scores, scores if bank_i2t is None else bank_i2t, i2t),
            (by_text, by_text if bank_t2i is None else bank_t2i.T, by_text),
        ):
            summary = correction.summary(correction.fit(partial(blocks_of, bank)))
            values = partial(_corrected, correction, summary)
            reorder_rows(queries, result, values, correction.at_once)
        return i2t, by_text.T


def _corrected(correction: Correction, summary: State, chunk: Tensor, _: slice) -> Tensor:
    return correction.correct(summary, chunk)


def blocks_of(bank: Tensor) -> Iterator[Tensor]:
    """Yield whole rows of a bank (B, G) in float32, float64 for float64, about BLOCK_SCORES."""
    for rows in bank.split(max(1, BLOCK_SCORES // bank.shape[1])):
        yield widened(contiguous(rows))


def placed(values: Tensor, like: Tensor) -> Tensor:
    """Return a tensor of a summary on the device of `like`, floats in its width."""
    return values.to(like.device, like.dtype if values.is_floating_point() else values.dtype)


def fittable() -> list[str]:
    """Return the names of the registered methods that are corrections, sorted."""
    from ascl_plugin import registry

    names = registry.available("rerank")
    return [name for name in names if isinstance(registry.resolve("rerank", name), BankMethod)]
