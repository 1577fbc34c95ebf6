"""Neighbours of a text taken from the labels: a leak, kept to reproduce published tables."""

from __future__ import annotations

import torch
from torch import Tensor

# what a table calls the row of recall after it
ROW = "oracle: label groups"
WARNING = (
    "rerank: caption_groups tells which captions belong to the same image. That is the label that "
    "retrieval is to find: text-to-image recall after it is that of an oracle, not of a method"
)


def group_neighbors(groups: Tensor) -> Tensor:
    """The texts of the same group as each text, itself among them.

    Args:
        groups: (T,) integers; texts with the same number are a group.

    Returns:
        (T, G) int64, G the size of the largest group; smaller groups repeat the text itself.
    """
    _, group, sizes = groups.unique(return_inverse=True, return_counts=True)
    order = group.argsort(stable=True)
    place = (
        torch.arange(len(groups), device=groups.device) - (sizes.cumsum(0) - sizes)[group[order]]
    )
    members = group.new_full((len(sizes), int(sizes.max())), -1)
    members[group[order], place] = order
    own = torch.arange(len(groups), device=groups.device)[:, None]
    neighbors = members[group]
    return torch.where(neighbors < 0, own, neighbors)
