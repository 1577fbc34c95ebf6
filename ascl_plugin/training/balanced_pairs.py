"""The balanced half-truths of a run: a list drawn once, and which of it each batch takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from torch import Tensor

from ascl_plugin.asymmetry.captions.balanced import BalancedBank, BalancedPair
from ascl_plugin.asymmetry.collator import AsymmetryCollator
from ascl_plugin.retrieval.balanced_scores import balanced_inputs
from ascl_plugin.retrieval.suites import reading

_ORDER = 2**31  # beyond every epoch: the order's draws are its own


class BalancedPairs:
    """Balanced half-truths of training images, so many for each batch.

    The list has each image as A at most once for each kind, with a caption of A and one of B as the
    host. It is a function of captions and kinds: runs with other seeds find its texts in the cache.
    Batches go through it in a drawn order, and again in another.

    Args:
        rows: training split, with `captions`; with `facts` truth is exact.
        count: pairs in a batch, over all ranks.
        kinds: names of `asymmetry.captions.balanced.KINDS`.
        seed: seed of the orders.

    Raises:
        ValueError: no pair can be made, or an unknown kind.
        ImportError: real captions, and no tagger (extra `words`).
    """

    def __init__(self, rows: Dataset, count: int, kinds: Sequence[str], seed: int) -> None:
        how = reading(rows)
        bank = BalancedBank(rows["captions"][:], how.noun_phrases, how.object_of, how.is_true)
        self.list: list[BalancedPair] = bank.pairs(0, kinds=kinds)
        if not self.list:
            raise ValueError(
                f"balanced_pairs: {len(rows)} training images give none of {', '.join(kinds)}"
            )
        self.count, self.seed = count, seed
        self._orders: dict[int, np.ndarray] = {}

    def of_batch(self, number: int) -> list[BalancedPair]:
        """Return the pairs of a batch, by its number in the run."""
        places = range(number * self.count, (number + 1) * self.count)
        return [self.list[self._order(n // len(self.list))[n % len(self.list)]] for n in places]

    def texts(self, batches: int) -> Iterator[str]:
        """Yield the texts of the first batches of a run, each once."""
        asked = min(batches * self.count, len(self.list))
        found: dict[str, None] = {}
        for number in range(-(-asked // self.count)):
            for pair in self.of_batch(number):
                found |= {pair.with_p: None, pair.with_q: None}
        yield from found

    def _order(self, number: int) -> np.ndarray:
        if number not in self._orders:
            generator = np.random.default_rng([self.seed, _ORDER, number])
            self._orders = {number: generator.permutation(len(self.list))}
        return self._orders[number]


class PairCollator:
    """Collate function of rows, and behind them those of balanced pairs, which have a `text`."""

    def __init__(self, collator: AsymmetryCollator) -> None:
        self.collator = collator

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the batch of the rows, and `balanced_inputs`."""
        begin = next((n for n, row in enumerate(rows) if "text" in row), len(rows))
        batch = self.collator(rows[:begin])
        if begin < len(rows) and self.collator.images is not None:
            own = [self.collator.viewed(row) for row in rows[begin:]]
            batch |= balanced_inputs(own, self.collator.images, self.collator.texts)
        return batch
