"""Bidirectional re-ranking of top-K lists, without a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from ascl_plugin.reranking.bidirectional import new_order
from ascl_plugin.reranking.lists import Lists, Places, check_ids
from ascl_plugin.reranking.neighbors import nearest_texts
from ascl_plugin.reranking.options import check_count, check_number
from ascl_plugin.scores import Array, as_tensor, check_scores, row_chunks


def reorder_both(
    i2t: Lists,
    t2i: Lists,
    *,
    k: int = 20,
    reverse_k: int | None = None,
    text_neighbors: int = 1,
    text_embeddings: Array | None = None,
    neighbors: Array | None = None,
    mix: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return new ids of both directions; the options are those of `rerank_candidates`."""
    check_count("k", k)
    check_count("text_neighbors", text_neighbors)
    if reverse_k is not None:
        check_count("reverse_k", reverse_k)
    check_number("mix", mix, at_least=0, at_most=1)
    texts_of, images_of = i2t.ids, t2i.ids
    images, texts = len(texts_of), len(images_of)
    speakers = _speakers(t2i.scores, text_neighbors, text_embeddings, neighbors)
    alone = torch.arange(images, device=texts_of.device)[:, None]
    places = Places(images_of, images, "t2i_ids")
    new_texts = _reordered(texts_of, places, alone, k, reverse_k, mix)
    del places  # as large as the ids
    places = Places(texts_of, texts, "i2t_ids")
    return new_texts, _reordered(images_of, places, speakers, k, reverse_k, mix)


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
