"""`rerank_candidates`: both directions re-ranked from top-K lists, without a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ascl_plugin.reranking.bidirectional import new_order
from ascl_plugin.reranking.lists import Places, check_ids, check_lists
from ascl_plugin.reranking.neighbors import nearest_texts
from ascl_plugin.reranking.options import check_count, check_number
from ascl_plugin.scores import Array, as_tensor, check_scores, like, row_chunks


@dataclass(frozen=True, eq=False)
class RerankedLists:
    """Copies of the given lists after re-ranking, of the same shapes, types, dtypes and devices.

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
    i2t_ids: Array,
    i2t_scores: Array,
    t2i_ids: Array,
    t2i_scores: Array,
    k: int = 20,
    reverse_k: int | None = None,
    text_neighbors: int = 1,
    text_embeddings: Array | None = None,
    neighbors: Array | None = None,
    mix: float = 0.0,
) -> RerankedLists:
    """Re-rank the lists of an index or vector database bidirectionally (ACF-R+, section 3.5).

    The k best texts of an image are put in the order in which their own lists hold the image, and
    the k best images of a text in the order in which theirs hold the text, or the best placed of
    its neighbours. A query that is missing from a list ranks behind all of it. Equal positions keep
    their order. It uses no labels. It is transductive: pass the lists of all queries.

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
        k: number of first results of each query to reorder; above the list's length: all.
        reverse_k: positions from this one on (counted from 0) count as equal. None: the length of
            the list.
        text_neighbors: number of texts whose positions count for a text, itself included; see
            `rerank`. More than 1 needs `text_embeddings`.
        text_embeddings: (T, E); neighbours by cosine, exact, at T T E multiply-adds: for large T
            ask an index, and pass `neighbors`.
        neighbors: (T, any) neighbours of each text beside itself, -1 for none; in place of
            `text_neighbors` and `text_embeddings`.
        mix: 0 to 1, weight of the initial rank; see `rerank`.

    Raises:
        TypeError: ids that are not integers, scores or embeddings that are not floats.
        ValueError: shapes that do not fit, an id out of range or twice in a row, -1 before an id,
            NaN, infinity or a rising score (with row and column), several devices, an option
            below 1, neighbours given in two ways.

    Example:
        >>> import numpy as np
        >>> from ascl_plugin.reranking import rerank_candidates
        >>> texts_of_images = np.array([[0, 1], [0, 1]])
        >>> images_of_texts = np.array([[1, 0], [0, 1]])  # text 0 prefers image 1
        >>> scores = np.array([[0.9, 0.8], [0.95, 0.1]])
        >>> rerank_candidates(texts_of_images, scores, images_of_texts, scores).i2t_ids
        array([[1, 0],
               [0, 1]])
    """
    check_count("k", k)
    check_count("text_neighbors", text_neighbors)
    if reverse_k is not None:
        check_count("reverse_k", reverse_k)
    check_number("mix", mix, at_least=0, at_most=1)
    texts_of = as_tensor(i2t_ids, "i2t_ids", "(images, K)", integers=True)
    images_of = as_tensor(t2i_ids, "t2i_ids", "(texts, K)", integers=True)
    text_scores = as_tensor(i2t_scores, "i2t_scores", "(images, K)")
    image_scores = as_tensor(t2i_scores, "t2i_scores", "(texts, K)")
    devices = {str(x.device) for x in (texts_of, text_scores, images_of, image_scores)}
    if len(devices) > 1:
        raise ValueError(f"ids and scores are on several devices: {', '.join(sorted(devices))}")
    images, texts = len(texts_of), len(images_of)
    check_lists(texts_of, text_scores, texts, "i2t")
    check_lists(images_of, image_scores, images, "t2i")
    speakers = _speakers(image_scores, text_neighbors, text_embeddings, neighbors)

    alone = torch.arange(images, device=texts_of.device)[:, None]
    places = Places(images_of, images, "t2i_ids")
    new_texts = _reordered(texts_of, places, alone, k, reverse_k, mix)
    del places  # as large as the ids
    places = Places(texts_of, texts, "i2t_ids")
    new_images = _reordered(images_of, places, speakers, k, reverse_k, mix)
    return RerankedLists(
        like(new_texts, i2t_ids),
        like(text_scores.clone(), i2t_scores),
        like(new_images, t2i_ids),
        like(image_scores.clone(), t2i_scores),
    )


def _reordered(
    ids: Tensor, places: Places, speakers: Tensor, k: int, reverse_k: int | None, mix: float
) -> Tensor:
    """Return a copy of `ids`, the first k of every row reordered by the places of its speakers.

    Args:
        ids: (Q, K).
        places: of queries in the lists of the gallery.
        speakers: (Q, S) queries, of which the best placed counts (eq 27).
        k, reverse_k, mix: as in `rerank_candidates`.
    """
    result = ids.clone(memory_format=torch.contiguous_format)
    k = min(k, ids.shape[1])
    for rows in row_chunks(len(ids), k * speakers.shape[1]):
        candidates = ids[rows, :k].long()
        position = places.find(candidates[:, :, None], speakers[rows, None, :]).amin(dim=2)
        # empty slots are last already, and behind all others by their position: they stay last
        result[rows, :k] = candidates.gather(1, new_order(position, reverse_k, mix)).to(ids.dtype)
    return result


def _speakers(scores: Tensor, count: int, embeddings: Array | None, given: Array | None) -> Tensor:
    """Return (T, S), the texts whose positions count for each text: first itself, then neighbours.

    Args:
        scores: (T, K') of the lists of the texts.
        count, embeddings, given: text_neighbors, text_embeddings and neighbors.
    """
    texts = len(scores)
    alone = torch.arange(texts, device=scores.device)[:, None]
    vectors = None
    if embeddings is not None:
        vectors = as_tensor(embeddings, "text_embeddings", "(texts, width)").to(scores.device)
        _check_rows("text_embeddings", vectors, texts)
        check_scores(vectors, "text_embeddings")
    if given is not None:
        if count != 1 or vectors is not None:
            raise ValueError(
                "neighbors takes the place of text_neighbors and text_embeddings: leave them out"
            )
        found = as_tensor(given, "neighbors", "(texts, neighbours)", integers=True)
        found = found.long().to(scores.device)
        _check_rows("neighbors", found, texts)
        check_ids(found, texts, "neighbors")
        return torch.cat([alone, torch.where(found < 0, alone, found)], dim=1)
    if count == 1:
        return alone
    if vectors is None:
        raise ValueError(
            f"text_neighbors={count}: lists do not say which texts are near; pass text_embeddings, "
            "or neighbors from an index of texts"
        )
    return nearest_texts(scores.T, min(count, texts), vectors)


def _check_rows(name: str, values: Tensor, texts: int) -> None:
    if len(values) != texts:
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}, t2i_ids has {texts} texts: "
            "it needs one row for each"
        )
