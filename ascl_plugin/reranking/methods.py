"""`rerank`: one function for every re-ranking method."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ascl_plugin import registry
from ascl_plugin.reranking.correction import BankMethod
from ascl_plugin.reranking.hubness import none
from ascl_plugin.reranking.neighbors import WARNING
from ascl_plugin.reranking.options import (
    ARRAYS,
    Method,
    MethodOptions,
    RerankOptions,
    array_option,
    check_count,
    check_known,
)
from ascl_plugin.scores import Array, as_tensor, check_scores, like

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True, eq=False)
class Reranked:
    """Scores after re-ranking, one matrix for each direction; ``i2t, t2i = rerank(sim)``.

    Args:
        i2t: (I, T); row i sorted from high to low is image i's new list of texts.
        t2i: (I, T); column t sorted from high to low is text t's new list of images.
        method: the name of the method.
        transductive: a query's result depends on the other queries of `sim`, in at least one
            direction. Reports must say so: a single query would not gain this.
        oracle: labels were used (`caption_groups`). Reports must say so: it is not a result.
    """

    i2t: Array
    t2i: Array
    method: str
    transductive: bool
    oracle: bool = False

    def __iter__(self) -> Iterator[Array]:
        """Yield the two matrices."""
        return iter((self.i2t, self.t2i))


@torch.no_grad()
def rerank(
    sim: Array,
    k: int | None = None,
    reverse_k: int | None = None,
    text_neighbors: int | None = None,
    text_embeddings: Array | None = None,
    method: str | Method = "bidirectional",
    **options: Unpack[MethodOptions],
) -> Reranked:
    """Re-rank both directions of retrieval from the scores alone.

    The default method is ACF-R+, section 3.5, eqs 19-29. *Image to text*: the k best texts of an
    image are put in the order in which they rank the image among all images. *Text to image*: the
    k best images of a text are put in the order in which they rank the text, or the best placed of
    the text's neighbours, among all texts. Equal positions keep the initial order. It uses no
    labels. It is transductive: a query's result depends on the other queries. The other methods
    (`ascl_plugin.reranking.hubness`, `ascl_plugin.reranking.k_reciprocal`) reorder whole lists.

    Each method has these options, and refuses the others; None means the default:

    ================  ==================================================================
    method            options and their defaults
    ================  ==================================================================
    bidirectional     k=20, reverse_k, text_neighbors=1, text_embeddings, mix=0, caption_groups
    inverted_softmax  temperature=.05, bank_i2t, bank_t2i
    dual_softmax      temperature=.05, bank_i2t, bank_t2i
    csls              neighbors=10, bank_i2t, bank_t2i
    qb_norm           temperature=.05, activation_k=1, bank_i2t, bank_t2i
    nnn               alpha=.75, neighbors=16, bank_i2t, bank_t2i
    dn                alpha=.5, bank_i2t, bank_t2i
    sinkhorn          temperature=.05, iterations=10, other_items=0, bank_i2t, bank_t2i
    dbnorm            temperature=.05, gallery_temperature=.5, other_items=0, bank_i2t, bank_t2i
    dbnorm_dynamic    as dbnorm, and activation_k=1
    mutual_proximity  distribution="gaussian", bank_i2t, bank_t2i
    local_scaling     neighbors=7, scaling="gaussian", self_score=1, bank_i2t, bank_t2i
    k_reciprocal      k1=20, k2=6, initial_weight=.3, image_embeddings, text_embeddings
    none
    ================  ==================================================================

    Args:
        sim: (I, T) similarities, row i and column t = image i and text t; higher is nearer. Numpy
            (float16, 32, 64) or torch (also bfloat16), any strides. Never modified.
        k: number of first results of each query to reorder; above the gallery's size: all.
        reverse_k: positions from this one on (counted from 0) count as equal, so candidates that
            rank the query that low keep their order. None: no limit.
        text_neighbors: number of texts whose positions count for a text, itself included. The
            default 1 is safe: wrong neighbours cost more than right ones gain. Where an image has
            several captions, 2 to 5 have gained on the scores of trained models; choose on a
            validation split. Above T: all texts.
        text_embeddings: (T, E); neighbours of a text by cosine, in place of the columns of `sim`.
        method: the name of a method: one of those above, registered by
            ``register("rerank", name)``, or an entry point; or the function itself, see
            `ascl_plugin.reranking.options.Method`. A name is never imported as a dotted path.
        mix: 0 to 1, weight of the initial rank beside the reverse position.
        caption_groups: (T,) integers, the same for captions of the same image: an *oracle*. The
            neighbours of a text are the texts of its group, which are its labels. Warns, and marks
            the result; excludes text_neighbors and text_embeddings.
        temperature: in units of the score; .05 suits cosines.
        neighbors: number of scores of the bank in a gallery item's mean.
        alpha: share of that mean that is subtracted.
        iterations: number of times that gallery and queries are balanced.
        gallery_temperature: temperature of the softmax over other gallery items.
        other_items: number of gallery items of other data in both banks; `dbnorm` has them as the
            first rows (columns of bank_t2i), `sinkhorn` behind the gallery.
        distribution: "gaussian" or "empirical".
        scaling: "gaussian" or "nicdm".
        self_score: score of two equal items.
        activation_k: number of first results of each query of the bank that count as hubs.
        k1: length of the lists that are compared.
        k2: number of lists that are averaged.
        initial_weight: 0 to 1, weight of the initial distance.
        bank_i2t: (B, T) scores of B *other* images, for example of the training split, with the
            same texts; None: those of `sim`. With both banks the method is not transductive.
        bank_t2i: (I, B') scores of the same images with B' other texts; None: those of `sim`.
        image_embeddings: (I, E); neighbours of an image by cosine, in place of the rows of `sim`.

    Returns:
        Reranked, its i2t and t2i both of sim's shape, type, dtype and device, without gradient.
        Every row of i2t (column of t2i) holds exactly the scores that sim's row (column) holds, in
        other places. Read the order by a stable sort from high to low, ties to the lower index.
        Since the scores stay the same, candidates that end up on *equal* scores are ordered by
        index and not by the new order. Scores in a wide format seldom tie; in float16 or bfloat16
        they do, so re-rank before rounding.

    Raises:
        TypeError: an array of another dtype; an option that the method does not have.
        ValueError: NaN or infinity (with row and column), an array of another shape, an option out
            of its bounds, an unknown method, caption_groups together with text_neighbors or
            text_embeddings.

    Examples:
        >>> import numpy as np
        >>> from ascl_plugin.reranking import rerank
        >>> sim = np.array([[0.9, 0.8], [0.95, 0.1]])  # text 0 prefers image 1
        >>> rerank(sim).i2t
        array([[0.8 , 0.9 ],
               [0.95, 0.1 ]])
    """
    every = {
        "k": k, "reverse_k": reverse_k, "text_neighbors": text_neighbors,
        "text_embeddings": text_embeddings, **options,
    }  # fmt: skip
    named = RerankOptions.__annotations__  # None is "the default" of these alone
    given = {o: value for o, value in every.items() if value is not None or o not in named}
    name, function = find_method(method)
    check_known(name, function, given)
    for option in ("k", "reverse_k", "text_neighbors"):
        if option in given:
            check_count(option, given[option])
    oracle = "caption_groups" in given
    if oracle:
        if {"text_neighbors", "text_embeddings"} & given.keys():
            raise ValueError(
                "rerank: caption_groups says which texts are neighbours; leave text_neighbors and "
                "text_embeddings out"
            )
        warnings.warn(WARNING, stacklevel=3)
    scores = as_tensor(sim, "sim")
    check_scores(scores, "sim")
    extra = 0
    if isinstance(function, BankMethod):
        plain = {name: value for name, value in given.items() if name not in ARRAYS}
        extra = function.correction(**plain).other_columns
    for option in ARRAYS:
        if option in given:
            given[option] = array_option(option, given[option], scores, extra)
    i2t, t2i = function(scores, **given)
    if {i2t.shape, t2i.shape} != {scores.shape}:
        raise ValueError(
            f"rerank: method {name!r} returned shapes {tuple(i2t.shape)} and {tuple(t2i.shape)}, "
            f"expected that of sim, {tuple(scores.shape)}, twice"
        )
    inductive = function is none or {"bank_i2t", "bank_t2i"} <= given.keys()
    return Reranked(like(i2t, sim), like(t2i, sim), name, not inductive, oracle)


def find_method(method: str | Method) -> tuple[str, Method]:
    """Return the name and the function of a re-ranking method.

    Raises:
        ValueError: no method has that name. A dotted path is not imported, because names come from
            files of saved runs, too.
    """
    if not isinstance(method, str):
        return getattr(method, "__name__", type(method).__name__), method
    names = registry.available("rerank")
    if method not in names:
        raise ValueError(
            f"rerank: no method {method!r}; there are {', '.join(names)}. Add one by "
            'register("rerank", name)'
        )
    return method, registry.resolve("rerank", method)
