"""`rerank_candidates`: both directions re-ranked from top-K lists, without a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ascl_plugin.reranking.bidirectional_lists import reorder_both
from ascl_plugin.reranking.correction import BankMethod
from ascl_plugin.reranking.list_correction import Bias, from_bias, from_lists
from ascl_plugin.reranking.lists import Lists, check_lists
from ascl_plugin.reranking.options import check_known
from ascl_plugin.reranking.reranker import Reranker
from ascl_plugin.scores import Array, as_tensor, like


@dataclass(frozen=True, eq=False)
class RerankedLists:
    """Copies of the given lists after re-ranking, of the same shapes, types, dtypes and devices.

    A direction without lists is empty, (0, 0).

    Args:
        i2t_ids: (I, K) texts of each image, best first; -1 marks an empty slot.
        i2t_scores: (I, K) as given: scores keep their places, ids move.
        t2i_ids: (T, K') images of each text.
        t2i_scores: (T, K').
    """

    i2t_ids: Array
    i2t_scores: Array
    t2i_ids: Array
    t2i_scores: Array


@torch.no_grad()
def rerank_candidates(
    i2t_ids: Array | None = None,
    i2t_scores: Array | None = None,
    t2i_ids: Array | None = None,
    t2i_scores: Array | None = None,
    k: int | None = None,
    reverse_k: int | None = None,
    text_neighbors: int | None = None,
    text_embeddings: Array | None = None,
    neighbors: Array | int | None = None,
    mix: float | None = None,
    *,
    method: str | BankMethod | None = None,
    i2t_bias: Bias | None = None,
    t2i_bias: Bias | None = None,
    **options: object,
) -> RerankedLists:
    """Re-rank the lists of an index or vector database.

    By default bidirectionally (ACF-R+, section 3.5); by another method, or by the bias of a fitted
    `Reranker`, see `method` and `i2t_bias`.

    The k best texts of an image are put in the order in which their own lists hold the image, and
    the k best images of a text in the order in which theirs hold the text, or the best placed of
    its neighbours. A query that is missing from a list ranks behind all of it. Equal positions keep
    their order. It uses no labels. It is transductive: pass the lists of all queries. (With a bias
    for each direction it is not: a single list will do.)

    The result equals that of `rerank` if the lists are exact (by score, equal scores by lower id)
    and the neighbours are the same: I2T that of
    ``rerank(sim, k=min(k, K), reverse_k=min(reverse_k, K'))`` and T2I that of
    ``rerank(sim, k=min(k, K'), reverse_k=min(reverse_k, K))``.

    Time is O((I + T) K log(I K + T K')). Beside the result there is one int64 copy of the ids of
    one direction.

    Args:
        i2t_ids: (I, K) integers, the texts of each image, best first. -1, as in faiss, fills the
            end of a list that is not full.
        i2t_scores: (I, K) floats from high to low along a row: similarities; negate distances.
            Those of an id -1 may be anything.
        t2i_ids: (T, K') the images of each text.
        t2i_scores: (T, K').
        k: number of first results of each query to reorder, 20; above the list's length: all. This
            and the next five are options of the default method; others reorder whole lists.
        reverse_k: positions from this one on (counted from 0) count as equal. None: the length of
            the list.
        text_neighbors: number of texts whose positions count for a text, itself included; see
            `rerank`. More than 1 needs `text_embeddings`.
        text_embeddings: (T, E); neighbours by cosine, exact, at T T E multiply-adds: for large T
            ask an index, and pass `neighbors`.
        neighbors: (T, any) neighbours of each text beside itself, -1 for none; in place of
            `text_neighbors` and `text_embeddings`.
        mix: 0 to 1, weight of the initial rank; see `rerank`.
        method: None: the above. "inverted_softmax", "dual_softmax", "csls", "nnn", "qb_norm" or
            "local_scaling": a gallery item's bank is its own list in the other direction, so both
            are needed. The means of `csls` and `nnn` are exact if lists are no shorter than
            `neighbors`; a sum over all queries is that over the list.
        i2t_bias: a fitted `Reranker` whose gallery is the texts, or its `gallery_bias` (T,), for
            image to text; t2i lists are not needed for it.
        t2i_bias: the same for text to image, (I,).
        **options: of `method`, see `rerank`; `neighbors` is a number there.

    Raises:
        TypeError: ids that are not integers, scores or embeddings that are not floats.
        ValueError: no lists, shapes that do not fit, an id out of range or twice in a row, -1
            before an id, NaN, infinity or a rising score (with row and column), several devices, an
            option below 1, neighbours given in two ways; a method that lists do not suffice for; a
            bias without its lists or of another length.

    Examples:
        >>> import numpy as np
        >>> from ascl_plugin.reranking import rerank_candidates
        >>> texts_of_images = np.array([[0, 1], [0, 1]])
        >>> images_of_texts = np.array([[1, 0], [0, 1]])  # text 0 prefers image 1
        >>> scores = np.array([[0.9, 0.8], [0.95, 0.1]])
        >>> rerank_candidates(texts_of_images, scores, images_of_texts, scores).i2t_ids
        array([[1, 0],
               [0, 1]])
    """
    plain: dict[str, Any] = {
        "k": k, "reverse_k": reverse_k, "text_neighbors": text_neighbors,
        "text_embeddings": text_embeddings, "neighbors": neighbors, "mix": mix,
    }  # fmt: skip
    given = {name: value for name, value in plain.items() if value is not None}
    i2t = _lists(i2t_ids, i2t_scores, "i2t", "(images, K)")
    t2i = _lists(t2i_ids, t2i_scores, "t2i", "(texts, K)")
    if i2t is None and t2i is None:
        raise ValueError("rerank_candidates: pass i2t or t2i lists, ids and scores")
    _check_both(i2t, t2i, i2t_bias, t2i_bias)
    biased = i2t_bias is not None or t2i_bias is not None
    if method == "bidirectional" or (method is None and not biased):
        if i2t is None or t2i is None or biased:
            raise ValueError(
                "rerank_candidates: the bidirectional method needs the lists of both directions; "
                "for one alone pass the bias of a fitted Reranker for it, and no method"
            )
        check_known("bidirectional", reorder_both, {**given, **options})
        new_texts, new_images = reorder_both(i2t, t2i, **given)
    else:
        given |= options
        new_texts = _corrected(i2t, t2i, i2t_bias, method, given, "i2t")
        new_images = _corrected(t2i, i2t, t2i_bias, method, given, "t2i")
    model = i2t_ids if i2t_ids is not None else t2i_ids
    empty = like(torch.empty(0, 0), model)
    return RerankedLists(
        empty if i2t is None else like(new_texts, i2t_ids),
        empty if i2t is None else like(i2t.scores.clone(), i2t_scores),
        empty if t2i is None else like(new_images, t2i_ids),
        empty if t2i is None else like(t2i.scores.clone(), t2i_scores),
    )


def _lists(ids: Array | None, scores: Array | None, name: str, axes: str) -> Lists | None:
    if ids is None and scores is None:
        return None
    if ids is None or scores is None:
        raise ValueError(f"rerank_candidates: {name}_ids and {name}_scores go together")
    return Lists(
        as_tensor(ids, f"{name}_ids", axes, integers=True),
        as_tensor(scores, f"{name}_scores", axes),
    )


def _check_both(
    i2t: Lists | None, t2i: Lists | None, i2t_bias: Bias | None, t2i_bias: Bias | None
) -> None:
    """Refuse lists on several devices, and lists that are no rankings of their gallery."""
    devices = {str(x.device) for lists in (i2t, t2i) if lists is not None for x in lists}
    if len(devices) > 1:
        raise ValueError(f"ids and scores are on several devices: {', '.join(sorted(devices))}")
    for lists, other, bias, name in ((i2t, t2i, i2t_bias, "i2t"), (t2i, i2t, t2i_bias, "t2i")):
        if lists is None:
            if bias is not None:
                raise ValueError(f"rerank_candidates: {name}_bias without {name}_ids")
            continue
        if other is not None:
            gallery = len(other.ids)
        elif bias is not None:
            gallery = bias.gallery_size if isinstance(bias, Reranker) else len(bias)
        else:
            gallery = int(lists.ids.max()) + 1
        check_lists(lists.ids, lists.scores, gallery, name)


def _corrected(
    lists: Lists | None,
    other: Lists | None,
    bias: Bias | None,
    method: str | BankMethod | None,
    options: Mapping[str, object],
    name: str,
) -> Tensor:
    """Return the ids of one direction after a correction by a bias or by the other's lists."""
    if lists is None:
        return torch.empty(0, 0)
    if bias is not None:
        if method is None and options:
            raise TypeError(f"rerank_candidates: {', '.join(options)} without a method to have it")
        found = from_bias(bias, None if other is None else len(other.ids), f"{name}_bias")
    elif other is None or method is None:
        raise ValueError(
            f"rerank_candidates: {name} needs {name}_bias, or a method and the lists of the other "
            "direction"
        )
    else:
        found = from_lists(method, options, lists.ids, other.scores, other.ids.long() >= 0)
    return found.reordered(lists.ids, lists.scores)
