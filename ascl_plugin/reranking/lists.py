"""Top-K lists as an index returns them: checked at the border, and searched for who is where."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.scores import Array, row_chunks


def ids_tensor(values: Array, name: str, axes: str) -> Tensor:
    """Ids as a tensor, on the memory of `values` wherever torch can read that.

    Args:
        values: 2-D numpy array or tensor of integers of any width; left untouched.
        name: what messages call it.
        axes: what its two axes are, for messages.

    Raises:
        TypeError: neither numpy nor torch, or no integers.
        ValueError: not two axes, or one of them is empty.
    """
    if isinstance(values, np.ndarray):
        integers = values.dtype.kind in "iu"
    elif isinstance(values, Tensor):
        integers = not (values.dtype.is_floating_point or values.dtype.is_complex)
        integers = integers and values.dtype != torch.bool
    else:
        raise TypeError(
            f"{name} must be a numpy array or a torch tensor, got {type(values).__name__}"
        )
    if not integers:
        raise TypeError(f"{name} must hold integers, got {values.dtype}")
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{name} must be {axes}, none of them 0, got shape {tuple(values.shape)}")
    if isinstance(values, Tensor):
        return values
    native = np.asarray(values, dtype=values.dtype.newbyteorder("="))
    if not native.flags.writeable or min(native.strides) < 0:
        native = native.copy()  # torch reads neither without a warning or an error
    return torch.from_numpy(native)


def check_lists(ids: Tensor, scores: Tensor, gallery: int, name: str) -> None:
    """Refuse lists that are no rankings; an id twice in a row is found by `Places`.

    Args:
        ids: (Q, K), -1 for nobody.
        scores: (Q, K); those of nobody are not looked at.
        gallery: ids are below this.
        name: "i2t" or "t2i", for messages.

    Raises:
        ValueError: with the first row and column at fault.
    """
    if ids.shape != scores.shape:
        raise ValueError(
            f"{name}_ids is {tuple(ids.shape)} and {name}_scores {tuple(scores.shape)}: "
            "every id needs a score"
        )
    check_ids(ids, gallery, f"{name}_ids")
    for rows in row_chunks(*ids.shape):
        somebody, score = ids[rows].long() >= 0, scores[rows]
        late = torch.zeros_like(somebody)
        late[:, 1:] = somebody[:, 1:] & ~somebody[:, :-1]
        _refuse(late, rows, ids, f"{name}_ids", "behind -1, which only ends a list")
        bad = somebody & ~score.isfinite()
        _refuse(bad, rows, scores, f"{name}_scores", "and every score must be finite")
        rising = torch.zeros_like(somebody)
        rising[:, 1:] = somebody[:, 1:] & (score[:, 1:] > score[:, :-1])
        problem = "more than the score before it: lists go from high to low (negate distances)"
        _refuse(rising, rows, scores, f"{name}_scores", problem)


def check_ids(ids: Tensor, gallery: int, name: str) -> None:
    """Refuse an id that is none of -1, 0, ..., gallery - 1.

    Raises:
        ValueError: with the first row and column at fault.
    """
    for rows in row_chunks(*ids.shape):
        part = ids[rows].long()
        bad = (part < -1) | (part >= gallery)
        _refuse(bad, rows, ids, name, f"expected 0 to {gallery - 1}, or -1 for nobody")


class Places:
    """Where in a list somebody is, for lists of any number: sorted keys, O(Q K log K) to make.

    A key is list, member and place in one integer, so that a binary search for list and member
    finds the place. Members come in the order of their ids within a list.

    Args:
        ids: (Q, K) of 0 ... gallery - 1, or -1.
        gallery: number of possible members.
        name: what messages call the ids.

    Raises:
        ValueError: an id is twice in a row; names both.
    """

    def __init__(self, ids: Tensor, gallery: int, name: str) -> None:
        self.width = ids.shape[1]
        self.base = gallery + 1  # nobody is member 0
        keys = torch.empty(ids.shape, dtype=torch.int64, device=ids.device)
        place = torch.arange(self.width, device=ids.device)
        for rows in row_chunks(*ids.shape):
            number = torch.arange(rows.start, rows.stop, device=ids.device)[:, None]
            member = number.mul(self.base) + ids[rows].long() + 1
            key = _sorted_rows(member * self.width + place)
            keys[rows] = key
            member = key.div(self.width, rounding_mode="floor")
            twice = (member[:, 1:] == member[:, :-1]) & (member[:, 1:] % self.base > 0)
            if twice.any():
                row, column = twice.nonzero()[0].tolist()
                who = int(member[row, column]) % self.base - 1
                raise ValueError(f"{name} holds {who} twice at row {rows.start + row}")
        self.keys = keys.view(-1)

    def find(self, lists: Tensor, members: Tensor) -> Tensor:
        """Place of a member in a list, K where it is not in it.

        Args:
            lists: (...) which list; -1, the list of nobody, holds nobody.
            members: same shape, ids from 0.

        Returns:
            (...) int64 in 0 ... K.
        """
        wanted = ((lists * self.base + members + 1) * self.width).contiguous()
        at = torch.searchsorted(self.keys, wanted).clamp_(max=len(self.keys) - 1)
        place = self.keys[at] - wanted
        return torch.where((place >= 0) & (place < self.width), place, self.width)


def _sorted_rows(keys: Tensor) -> Tensor:
    if keys.device.type != "cpu":
        return keys.sort(dim=1).values
    keys.numpy().sort(axis=1)  # vectorised: several times faster than torch, which also argsorts
    return keys


def _refuse(bad: Tensor, rows: slice, values: Tensor, name: str, problem: str) -> None:
    if bad.any():
        row, column = bad.nonzero()[0].tolist()
        row += rows.start
        raise ValueError(
            f"{name} holds {values[row, column].item()} at row {row}, column {column} "
            f"(counted from 0); {problem}"
        )
