"""Corrections of top-K lists: by a fitted `Reranker` or its bias, or by the gallery's own lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.reranking.correction import BankMethod, Correction, State, placed
from ascl_plugin.reranking.methods import find_method
from ascl_plugin.reranking.options import Method, check_known
from ascl_plugin.reranking.reorder import widened
from ascl_plugin.reranking.reranker import Reranker
from ascl_plugin.scores import Array, as_array, row_chunks

Bias = Array | Reranker


@dataclass(frozen=True)
class ListCorrection:
    """A correction and its numbers for each gallery item.

    Args:
        correction: the equation.
        summary: tensors (G,).
    """

    correction: Correction
    summary: State

    def reordered(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Return a copy of ids (Q, K), every row in the order of its corrected scores.

        Equal ones keep their order; empty slots (-1) stay last.
        """
        result = ids.clone(memory_format=torch.contiguous_format)
        for rows in row_chunks(*ids.shape):
            at, empty = ids[rows].long().clamp_min(0), ids[rows].long() < 0
            given = widened(scores[rows])
            # an empty slot may hold anything; the lowest score of its row changes nothing
            lowest = given.masked_fill(empty, torch.inf).amin(dim=1, keepdim=True)
            lowest = lowest.masked_fill(lowest.isinf(), 0)
            given = torch.where(empty, lowest, given)
            summary = {name: placed(values, given)[at] for name, values in self.summary.items()}
            values = self.correction.correct(summary, given).masked_fill(empty, -torch.inf)
            order = values.argsort(dim=1, descending=True, stable=True)
            result[rows] = ids[rows].gather(1, order)
        return result


def from_bias(bias: Bias, gallery: int | None, name: str) -> ListCorrection:
    """Return the correction of a fitted `Reranker`, or of numbers (G,) to add.

    Args:
        bias: as given.
        gallery: number of gallery items, None if no lists tell it.
        name: of the argument, for messages.

    Raises:
        TypeError: no floats.
        ValueError: not one finite number for each gallery item; a method that cannot correct lists.
    """
    if isinstance(bias, Reranker):
        correction, summary = bias.fitted()
        if not (correction.additive() or correction.lists):
            raise ValueError(
                f"{name}: method {bias.method!r} compares a query's score with its scores of the "
                "whole gallery, which lists do not hold"
            )
    else:
        values = as_array(bias, name)
        correction, summary = Correction(), {"bias": torch.as_tensor(np.asarray(values))}
        if not summary["bias"].is_floating_point():
            raise TypeError(f"{name} must hold floats, got {values.dtype}")
    count = next(iter(summary.values())).shape
    if len(count) != 1 or (gallery is not None and count[0] != gallery):
        wanted = "the gallery" if gallery is None else f"{gallery} gallery items"
        raise ValueError(
            f"{name} has shape {tuple(count)}, it needs one number for each of {wanted}"
        )
    if not all(values.isfinite().all() for values in summary.values()):
        raise ValueError(f"{name} must be finite")
    return ListCorrection(correction, summary)


def from_lists(
    method: str | Method, options: Mapping[str, object], ids: Tensor, own: Tensor, used: Tensor
) -> ListCorrection:
    """Return a correction whose bank, for each gallery item, is the item's own list.

    Args:
        method, options: of `rerank`.
        ids: (Q, K), lists of the queries.
        own: (G, K'), scores in the lists of the gallery.
        used: (G, K'), False for an empty slot, for which the list's last score counts.
    """
    name, function = find_method(method)
    if not isinstance(function, BankMethod) or not function.correction.lists:
        raise ValueError(
            f"rerank_candidates: method {name!r} needs more than lists; fit a Reranker on a bank "
            "and pass it as i2t_bias or t2i_bias, or use rerank"
        )
    check_known(name, function.correction, options)
    correction = function.correction(**options)
    scores = widened(own)
    lowest = scores.masked_fill(~used, torch.inf).amin(dim=1, keepdim=True)
    lowest = torch.where(lowest.isinf(), lowest[~lowest.isinf()].amin(), lowest)
    state = correction.update({}, torch.where(used, scores, lowest).T.contiguous())
    if "hubs" in state:  # of whole lists, not of one place in all of them
        first = ids[:, : getattr(correction, "activation_k", 1)].long()
        state["hubs"] = torch.zeros_like(state["hubs"]).index_fill(0, first[first >= 0], True)
    return ListCorrection(correction, correction.summary(state))
