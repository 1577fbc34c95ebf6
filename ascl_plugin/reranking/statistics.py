"""Running statistics of a bank of queries: numbers of each gallery item, block by block.

Each takes the state so far (``{}`` at the start) and a block of bank rows (C, G) in float32 or
float64, and returns the entries after it. `ascl_plugin.reranking.correction` says how they are
used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ascl_plugin.ranking import top_candidates
from ascl_plugin.scores import row_chunks

State = dict[str, Tensor]


def highest(state: State, block: Tensor, count: int) -> State:
    """Return ``{"highest": (G, at most count)}``: each item's highest scores, from high to low.

    Only items that the block improves are merged: a share of count * C / B of them after B rows.
    """
    found = state.get("highest")
    if found is None:
        return {"highest": _highest(block, count, block.new_empty(block.shape[1], 0))}
    improved = torch.arange(len(found), device=block.device)
    if found.shape[1] == count:
        improved = (block.amax(dim=0) > found[:, -1]).nonzero()[:, 0]
        result = found.clone()
    else:
        result = found.new_empty(len(found), min(count, found.shape[1] + len(block)))
    result[improved] = _highest(block, count, found, improved)
    return {"highest": result}


def _highest(block: Tensor, count: int, found: Tensor, items: Tensor | None = None) -> Tensor:
    """Return the highest of `block` and `found` for the given items, (len(items), <= count)."""
    parts = []
    width = block.shape[1] if items is None else len(items)
    count = min(count, found.shape[1] + len(block))
    for chunk in row_chunks(width, len(block) + found.shape[1]):
        at = chunk if items is None else items[chunk]
        both = torch.cat([found[at], block[:, at].T], dim=1)
        parts.append(both.topk(count, dim=1).values)
    return torch.cat(parts) if parts else found.new_empty(0, count)


def exponentials(state: State, block: Tensor, temperature: float) -> State:
    """Return ``{"maximum": (G,), "total": (G,)}`` of sum_b exp(s(b, g) / temperature).

    The sum is total * exp(maximum / temperature), so that no score overflows.
    """
    maximum = block.amax(dim=0)
    if "maximum" in state:
        maximum = torch.maximum(maximum, state["maximum"])
    total = torch.zeros_like(maximum)
    for rows in row_chunks(*block.shape):
        total += ((block[rows] - maximum) / temperature).exp_().sum(dim=0)
    if "total" in state:
        total += state["total"] * ((state["maximum"] - maximum) / temperature).exp()
    return {"maximum": maximum, "total": total}


def soft_maximum(state: State, temperature: float) -> Tensor:
    """Return temperature * log sum_b exp(s(b, g) / temperature) from `exponentials`, (G,)."""
    return state["maximum"] + temperature * state["total"].log()


def hubs(state: State, block: Tensor, count: int) -> State:
    """Return ``{"hubs": (G,) bool}``: the items among the `count` best of any query of the bank."""
    none = block.new_zeros(block.shape[1], dtype=torch.bool)
    found = state["hubs"].clone() if "hubs" in state else none
    found[top_candidates(block, min(count, len(found)))] = True
    return {"hubs": found}
