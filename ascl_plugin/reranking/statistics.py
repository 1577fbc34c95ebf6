"""Running statistics of a bank of queries: numbers of each gallery item, block by block.

Each takes the state so far (``{}`` at the start) and a block of bank rows (C, G) in float32 or
float64, and returns the entries after it. `ascl_plugin.reranking.correction` says how they are
used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ascl_plugin.ranking import top_candidates
from ascl_plugin.reranking.reorder import sort_rows
from ascl_plugin.scores import IN_CACHE, row_chunks

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
    width = block.shape[1] if items is None else len(items)
    count = min(count, found.shape[1] + len(block))
    result = found.new_empty(width, count)
    for chunk in row_chunks(width, len(block) + found.shape[1]):
        at = chunk if items is None else items[chunk]
        both = torch.cat([found[at], block[:, at].T], dim=1)
        result[chunk] = both.topk(count, dim=1).values
    return result


def exponentials(state: State, block: Tensor, temperature: float) -> State:
    """Return ``{"maximum": (G,), "total": (G,)}`` of sum_b exp(s(b, g) / temperature).

    The sum is total * exp(maximum / temperature), so that no score overflows.
    """
    maximum = block.amax(dim=0)
    if "maximum" in state:
        maximum = torch.maximum(maximum, state["maximum"])
    total = torch.zeros_like(maximum)
    width = max(256, IN_CACHE // len(block))
    strips = zip(block.split(width, 1), maximum.split(width), total.split(width), strict=True)
    for strip, peak, sum_ in strips:
        for part in strip.split(max(1, IN_CACHE // width)):
            sum_ += part.sub(peak).div_(temperature).exp_().sum(dim=0)
    if "total" in state:
        total += state["total"] * ((state["maximum"] - maximum) / temperature).exp()
    return {"maximum": maximum, "total": total}


def soft_maximum(state: State, temperature: float) -> Tensor:
    """Return temperature * log sum_b exp(s(b, g) / temperature) from `exponentials`, (G,)."""
    return state["maximum"] + temperature * state["total"].log()


def sums(state: State, block: Tensor) -> State:
    """Return ``{"sum": (G,), "squares": (G,), "rows": (), "like": (0,)}``, sums in float64."""
    zeros = block.new_zeros(block.shape[1], dtype=torch.float64)
    found = {"sum": zeros, "squares": zeros.clone(), "rows": torch.tensor(len(block))}
    for rows in block.split(max(1, IN_CACHE // block.shape[1])):
        exact = rows.double()
        found["sum"] += exact.sum(dim=0)
        found["squares"] += exact.square().sum(dim=0)
    added = {name: state[name] + value if state else value for name, value in found.items()}
    return added | {"like": block.new_empty(0)}


def moments(state: State) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each item's scores from `sums`, (G,) each."""
    mean = state["sum"] / state["rows"]
    variance = state["squares"] / state["rows"] - mean.square()
    return mean.to(state["like"]), variance.clamp_min(0).sqrt().to(state["like"])


def rising(scores: Tensor) -> Tensor:
    """Return a copy with every row sorted from low to high."""
    return sort_rows(scores.clone(memory_format=torch.contiguous_format))


def hubs(state: State, block: Tensor, count: int) -> State:
    """Return ``{"hubs": (G,) bool}``: the items among the `count` best of any query of the bank."""
    none = block.new_zeros(block.shape[1], dtype=torch.bool)
    found = state["hubs"].clone() if "hubs" in state else none
    found[top_candidates(block, min(count, len(found)))] = True
    return {"hubs": found}
