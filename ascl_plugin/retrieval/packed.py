"""Cached features in memory: one tensor a name, from which a batch is one gather."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.data.store import FeatureStore

Entry = dict[str, Tensor]


class PackedFeatures:
    """Entries of a store, one after another in memory, float32.

    Args:
        store: store of entries whose tensors are (any, D) or, the same in all entries, (D,).
        keys: keys of the entries, the most important first; repeated ones count once.
        limit: bytes to keep at most: an entry that goes beyond it is left out, and all behind it.
        reduce: function from an entry to what of it is kept; None: all.

    Attributes:
        place: number of each entry that is kept, by key.

    Raises:
        KeyError: the store has no such entry.
    """

    def __init__(
        self,
        store: FeatureStore,
        keys: Iterable[str],
        limit: int,
        reduce: Callable[[Entry], Entry] | None = None,
    ) -> None:
        self.place: dict[str, int] = {}
        items: dict[str, list[Tensor]] = {}  # mapped: nothing is copied yet
        kept = 0
        for key in dict.fromkeys(keys):
            entry = store.stored(key)
            if reduce is not None:
                entry = reduce(entry)
            kept += sum(value.numel() * 4 for value in entry.values())
            if kept > limit:
                break
            self.place[key] = len(self.place)
            for name, value in entry.items():
                items.setdefault(name, []).append(value)
        self._lengths = {name: torch.tensor([len(v) for v in vs]) for name, vs in items.items()}
        # row 0 is zeros, for padding
        self._starts = {name: 1 + n.cumsum(0) - n for name, n in self._lengths.items()}
        self._rows = {name: _concatenated(values) for name, values in items.items()}

    def places(self, keys: Sequence[str]) -> Tensor | None:
        """Return the numbers (N,) of the entries of N keys; None if one is not kept."""
        found = [self.place.get(key, -1) for key in keys]
        return None if -1 in found else torch.tensor(found, dtype=torch.int64)

    def vectors(self, name: str, places: Tensor) -> Tensor:
        """Return the tensors (D,) of N entries as (N, D)."""
        rows = self._rows[name][1:].view(-1, int(self._lengths[name][0]))
        return _gathered(rows, places)

    def padded(self, name: str, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tensors (any, D) of N entries as (N, longest, D), and their mask.

        Padding is 0; there is one place at least.
        """
        lengths = self._lengths[name][places]
        steps = torch.arange(max(int(lengths.max()), 1))
        mask = steps < lengths[:, None]
        index = (self._starts[name][places][:, None] + steps) * mask
        return _gathered(self._rows[name], index.flatten()).unflatten(0, mask.shape), mask


def _concatenated(values: list[Tensor]) -> Tensor:
    """Return the rows of all tensors under a row of zeros, float32."""
    rows = torch.zeros(1 + sum(map(len, values)), *values[0].shape[1:])
    begin = 1
    for value in values:
        rows[begin : (begin := begin + len(value))] = value
    return rows


def _gathered(rows: Tensor, index: Tensor) -> Tensor:
    """Return `rows[index]`; numpy's memory comes in large pages, which halves the time."""
    out = torch.from_numpy(np.empty((len(index), *rows.shape[1:]), np.float32))
    return torch.index_select(rows, 0, index, out=out)
