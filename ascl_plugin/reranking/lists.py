"""Top-K lists as an index returns them: checked, and searched for the place of an item."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ascl_plugin.reranking.reorder import sort_rows
from ascl_plugin.scores import refuse, row_chunks


class Lists(NamedTuple):
    """Lists of one direction: ids (Q, K) and scores (Q, K)."""

    ids: Tensor
    scores: Tensor


def check_lists(ids: Tensor, scores: Tensor, gallery: int, name: str) -> None:
    """Refuse lists that are not rankings; an id that occurs twice is found by `Places`.

    Args:
        ids: (Q, K), -1 marks an empty slot.
        scores: (Q, K); those of empty slots may be anything.
        gallery: ids are below this.
        name: "i2t" or "t2i", for messages.

    Raises:
        ValueError: names the first row and column at fault.
    """
    if ids.shape != scores.shape:
        raise ValueError(
            f"{name}_ids is {tuple(ids.shape)} and {name}_scores {tuple(scores.shape)}: "
            "every id needs a score"
        )
    check_ids(ids, gallery, f"{name}_ids")
    for rows in row_chunks(*ids.shape):
        used, score = ids[rows].long() >= 0, scores[rows]
        late = torch.zeros_like(used)
        late[:, 1:] = used[:, 1:] & ~used[:, :-1]
        refuse(late, rows, ids, f"{name}_ids", "behind -1, but empty slots must end the list")
        bad = used & ~score.isfinite()
        refuse(bad, rows, scores, f"{name}_scores", "every score must be finite")
        rising = torch.zeros_like(used)
        rising[:, 1:] = used[:, 1:] & (score[:, 1:] > score[:, :-1])
        problem = "more than the score before it: lists go from high to low (negate distances)"
        refuse(rising, rows, scores, f"{name}_scores", problem)


def check_ids(ids: Tensor, gallery: int, name: str) -> None:
    """Raise ValueError, with row and column, at an id that is none of -1, ..., gallery - 1."""
    for rows in row_chunks(*ids.shape):
        part = ids[rows].long()
        bad = (part < -1) | (part >= gallery)
        refuse(bad, rows, ids, name, f"expected 0 to {gallery - 1}, or -1 for an empty slot")


class Places:
    """Place of any item in any of many lists, by binary search; O(Q K log K) to make.

    A key is list, item and place in one integer, so that a binary search for list and item finds
    the place. The keys of a list are in the order of its ids.

    Args:
        ids: (Q, K) of 0 ... gallery - 1, or -1.
        gallery: number of possible items.
        name: the name of the ids in messages.

    Raises:
        ValueError: an id occurs twice in a row; names both.
    """

    def __init__(self, ids: Tensor, gallery: int, name: str) -> None:
        self.width = ids.shape[1]
        self.base = gallery + 1  # an empty slot is item 0
        keys = torch.empty(ids.shape, dtype=torch.int64, device=ids.device)
        place = torch.arange(self.width, device=ids.device)
        for rows in row_chunks(*ids.shape):
            number = torch.arange(rows.start, rows.stop, device=ids.device)[:, None]
            item = number.mul(self.base) + ids[rows].long() + 1
            key = sort_rows(item * self.width + place)
            keys[rows] = key
            item = key.div(self.width, rounding_mode="floor")
            twice = (item[:, 1:] == item[:, :-1]) & (item[:, 1:] % self.base > 0)
            if twice.any():
                row, column = twice.nonzero()[0].tolist()
                found = int(item[row, column]) % self.base - 1
                raise ValueError(f"{name} holds {found} twice at row {rows.start + row}")
        self.keys = keys.view(-1)

    def find(self, lists: Tensor, items: Tensor) -> Tensor:
        """Return the place of an item in a list, K where it is not in it.

        Args:
            lists: (...) numbers of lists; -1, an empty slot, has no items.
            items: same shape, ids from 0.

        Returns:
            (...) int64 in 0 ... K.
        """
        wanted = ((lists * self.base + items + 1) * self.width).contiguous()
        at = torch.searchsorted(self.keys, wanted).clamp_(max=len(self.keys) - 1)
        place = self.keys[at] - wanted
        return torch.where((place >= 0) & (place < self.width), place, self.width)
