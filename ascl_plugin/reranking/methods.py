"""`rerank`: the one door to every re-ranking method."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ascl_plugin.reranking import hubness as baselines
from ascl_plugin.reranking.bidirectional import bidirectional
from ascl_plugin.reranking.k_reciprocal import k_reciprocal
from ascl_plugin.reranking.neighbors import WARNING
from ascl_plugin.reranking.options import ARRAYS, array_option, check_count, select_options
from ascl_plugin.scores import Array, as_tensor, check_scores, like


@dataclass(frozen=True, eq=False)
class Reranked:
    """Scores after re-ranking, each direction in a matrix of its own; ``i2t, t2i = rerank(sim)``.

    Args:
        i2t: (I, T); sorting a row from high to low gives the image's new list of texts.
        t2i: (I, T); sorting a column from high to low gives the text's new list of images.
        method: its name.
        transductive: a query's result depends on the other queries of `sim`, in one direction at
            least. A report says so: with one query at a time there would be none of this gain.
        oracle: labels entered (`caption_groups`). A report says so, too: it is no method's result.
    """

    i2t: Array
    t2i: Array
    method: str
    transductive: bool
    oracle: bool = False

    def __iter__(self) -> Iterator[Array]:
        """The two matrices."""
        return iter((self.i2t, self.t2i))


METHODS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "bidirectional": bidirectional,
    "csls": baselines.csls,
    "dual_softmax": baselines.dual_softmax,
    "inverted_softmax": baselines.inverted_softmax,
    "k_reciprocal": k_reciprocal,
    "nnn": baselines.nnn,
    "none": baselines.none,
    "qb_norm": baselines.qb_norm,
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
    """Re-rank both directions of retrieval from the scores alone.

    The default method is ACF-R+, section 3.5, eqs 19-29. *Image to text*: the k best texts of an
    image are put in the order in which they rank the image among all images. *Text to image*: the
    k best images of a text are put in the order in which they rank the text, or the best placed of
    the text's neighbours, among all texts. Equal positions keep the initial order. No label enters:
    neighbours come from the scores or from `text_embeddings`. It is transductive: a query's result
    depends on the other queries. For the other methods see `ascl_plugin.reranking.hubness` and
    `ascl_plugin.reranking.k_reciprocal`: they reorder whole lists, by values of their own.

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
        method: one of those below.
        **options: further options of the method. All that there are:

            ================  ==================================================================
            method            options and their defaults
            ================  ==================================================================
            bidirectional     k, reverse_k, text_neighbors, text_embeddings, mix=0, caption_groups
            inverted_softmax  temperature=.05, bank_i2t, bank_t2i
            dual_softmax      temperature=.05
            csls              neighbors=10, bank_i2t, bank_t2i
            qb_norm           temperature=.05, activation_k=1, bank_i2t, bank_t2i
            nnn               alpha=.75, neighbors=16, bank_i2t, bank_t2i
            k_reciprocal      k1=20, k2=6, initial_weight=.3, image_embeddings, text_embeddings
            none
            ================  ==================================================================

            mix: 0 to 1, how much the initial rank has to say beside the reverse position.
            temperature: in units of the score; .05 suits cosines.
            neighbors: scores of the bank in a gallery item's mean.
            alpha: how much of that mean is taken off.
            activation_k: first results of each query of the bank that are taken for hubs.
            k1, k2, initial_weight: lists compared, lists averaged, weight of the initial distance.
            bank_i2t: (B, T) scores of B *other* images, as of the training split, with the same
                texts. bank_t2i: (I, B') scores of the same images with B' other texts. With both
                the method is not transductive; where one is missing, the queries of `sim` serve.
            image_embeddings: (I, E), for neighbours among images; without: the rows of `sim`.
            caption_groups: (T,) integers, the same for captions of the same image: an *oracle*.
                The neighbours of a text are the texts of its group, which are its labels. It warns
                and marks its result; text_neighbors and text_embeddings are left alone with it.

    Returns:
        Reranked, its i2t and t2i both of sim's shape, type, dtype and device, without gradient.
        Every row of i2t (column of t2i) holds exactly the scores that sim's row (column) holds, in
        other places. Read the order by a stable sort from high to low, ties to the
        lower index. Since the scores stay the same, candidates that end up on *equal* scores are
        ordered by index and not by the new order: a matrix cannot say more. Scores in a wide
        format seldom tie; in float16 or bfloat16 they do, so re-rank before rounding.

    Raises:
        TypeError: sim or another array is of no float dtype; an option that the method does not
            have, or one of the shared ones (k to text_embeddings) that is not at its default there.
        ValueError: NaN or infinity (with row and column), not two axes, empty, an array of
            another shape, an option out of its bounds, an unknown method, caption_groups together
            with text_neighbors or text_embeddings.

    Example:
        >>> import numpy as np
        >>> from ascl_plugin.reranking import rerank
        >>> sim = np.array([[0.9, 0.8], [0.95, 0.1]])  # text 0 prefers image 1
        >>> rerank(sim).i2t
        array([[0.8 , 0.9 ],
               [0.95, 0.1 ]])
    """
    if method not in METHODS:
        raise ValueError(f"rerank: no method {method!r}; there are {', '.join(sorted(METHODS))}")
    shared = {
        "k": k,
        "reverse_k": reverse_k,
        "text_neighbors": text_neighbors,
        "text_embeddings": text_embeddings,
    }
    defaults = {name: inspect.signature(rerank).parameters[name].default for name in shared}
    chosen = select_options(method, METHODS[method], shared, defaults, options)
    for name in ("k", "text_neighbors", "reverse_k"):
        if chosen.get(name) is not None:
            check_count(name, chosen[name])
    oracle = chosen.get("caption_groups") is not None
    if oracle:
        if text_embeddings is not None or text_neighbors != defaults["text_neighbors"]:
            raise ValueError(
                "rerank: caption_groups says which texts are neighbours; leave text_neighbors and "
                "text_embeddings out"
            )
        warnings.warn(WARNING, stacklevel=3)
    scores = as_tensor(sim, "sim")
    check_scores(scores, "sim")
    for name in ARRAYS:
        if chosen.get(name) is not None:
            chosen[name] = array_option(name, chosen[name], scores)
    i2t, t2i = METHODS[method](scores, **chosen)
    inductive = method == "none" or all(
        chosen.get(bank) is not None for bank in ("bank_i2t", "bank_t2i")
    )
    return Reranked(like(i2t, sim), like(t2i, sim), method, not inductive, oracle)
