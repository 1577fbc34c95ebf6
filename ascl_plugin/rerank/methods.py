"""`rerank`: the one door to every re-ranking method."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ascl_plugin.rerank.bidirectional import bidirectional
from ascl_plugin.rerank.similarity import Array, as_tensor, check_scores, like


class Reranked(NamedTuple):
    """Scores after re-ranking, each direction in a matrix of its own.

    Args:
        i2t: (I, T); sorting a row from high to low gives the image's new list of texts.
        t2i: (I, T); sorting a column from high to low gives the text's new list of images.
    """

    i2t: Array
    t2i: Array


def none(
    scores: Tensor,
    *,
    k: int,
    reverse_k: int | None,
    text_neighbors: int,
    text_embeddings: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The scores as they are, twice: the baseline that a switch can name."""
    kept = torch.contiguous_format
    return scores.clone(memory_format=kept), scores.clone(memory_format=kept)


METHODS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "bidirectional": bidirectional,
    "none": none,
}


@torch.no_grad()
def rerank(
    sim: Array,
    k: int = 20,
    reverse_k: int | None = None,
    text_neighbors: int = 1,
    text_embeddings: Array | None = None,
    method: str = "bidirectional",
    **options: Any,
) -> Reranked:
    """Re-rank both directions of retrieval from the scores alone (ACF-R+, section 3.5, eqs 19-29).

    *Image to text*: the k best texts of an image are put in the order in which they rank the image
    among all images. *Text to image*: the k best images of a text are put in the order in which
    they rank the text, or the best placed of the text's neighbours, among all texts. Equal
    positions keep the initial order. No label enters: neighbours come from the scores or from
    `text_embeddings`. It is transductive: a query's result depends on the other queries.

    Args:
        sim: (I, T) similarities, row i and column t = image i and text t; higher is nearer. Numpy
            (float16, 32, 64) or torch (also bfloat16), any strides. Never modified.
        k: how many first results of each query are reordered; above the gallery's size: all.
        reverse_k: positions from this one on (counted from 0) count as equal, so a candidate that
            ranks the query that low keeps its place among its like. None: no limit.
        text_neighbors: how many texts speak for a text, itself included. The default 1, itself
            alone, is the safe one: wrong neighbours cost more than right ones gain. Where an image
            has several captions, 2 to 5 have gained on the scores of trained models; choose on a
            validation split. Above T: all texts.
        text_embeddings: (T, E) vectors whose cosines say which texts are neighbours; without them
            the texts' columns of `sim` do. Of no effect with ``text_neighbors=1``.
        method: "bidirectional", or "none" for the scores unchanged.
        **options: further options of the method; these two have none.

    Returns:
        Reranked(i2t, t2i), both of sim's shape, type, dtype and device, without gradient. Every
        row of i2t (column of t2i) holds exactly the scores that sim's row (column) holds: those of
        the k best changed places. Read the order by a stable sort from high to low, ties to the
        lower index. Since the scores stay the same, candidates that end up on *equal* scores are
        ordered by index and not by the new order: a matrix cannot say more. Scores in a wide
        format seldom tie; in float16 or bfloat16 they do, so re-rank before rounding.

    Raises:
        TypeError: sim or text_embeddings is no float array or tensor; an unknown option.
        ValueError: NaN or infinity (with row and column), not two axes, empty, text_embeddings
            not of T rows, an option below 1, an unknown method.

    Example:
        >>> import numpy as np
        >>> from ascl_plugin.rerank import rerank
        >>> sim = np.array([[0.9, 0.8], [0.95, 0.1]])  # text 0 prefers image 1
        >>> rerank(sim).i2t
        array([[0.8 , 0.9 ],
               [0.95, 0.1 ]])
    """
    if method not in METHODS:
        raise ValueError(f"rerank: no method {method!r}; there are {', '.join(sorted(METHODS))}")
    _check_count("k", k)
    _check_count("text_neighbors", text_neighbors)
    if reverse_k is not None:
        _check_count("reverse_k", reverse_k)
    scores = as_tensor(sim, "sim")
    check_scores(scores, "sim")
    i2t, t2i = METHODS[method](
        scores,
        k=int(k),
        reverse_k=reverse_k,
        text_neighbors=int(text_neighbors),
        text_embeddings=_embeddings(text_embeddings, scores.shape[1]),
        **options,
    )
    return Reranked(like(i2t, sim), like(t2i, sim))


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"rerank: {name} must be an integer of at least 1, got {value!r}")


def _embeddings(values: Array | None, texts: int) -> Tensor | None:
    if values is None:
        return None
    embeddings = as_tensor(values, "text_embeddings", "(texts, width)")
    if len(embeddings) != texts:
        raise ValueError(
            f"text_embeddings has shape {tuple(embeddings.shape)}, "
            f"sim has {texts} texts: it needs one row for each"
        )
    check_scores(embeddings, "text_embeddings")
    return embeddings
