"""Two stages, for galleries no matrix can hold: candidates from an index, exact scores on those."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.retrieval.embeddings import image_embeddings, text_embeddings
from ascl_plugin.retrieval.pairs import score_pairs
from ascl_plugin.retrieval.scoring import score_matrix
from ascl_plugin.retrieval.topk import TopK, best_of_pairs

CELL = 500  # texts of a cluster, on average


@torch.no_grad()
def search(
    model: Any,
    images: ImageFeatures,
    texts: TextFeatures,
    candidates: int = 100,
    topk: int = 10,
    *,
    embeddings: str | tuple[Tensor, Tensor] = "regions",
    index: str | tuple[Any, Any] = "Flat",
    index_options: str = "",
    memory: int = 2**30,
    progress: bool = False,
) -> TopK:
    """The best texts of each image and the best images of each text, by exact scores of candidates.

    Candidates are what an index of one vector an item puts first, so no result is better than
    these vectors are aligned between images and texts: see `search_report`. A pair that either
    direction brings up is scored once and counts in both.

    Args:
        model: a scorer `(images, texts) -> (I, T)`, or a model whose `fusion` is one.
        images, texts: features.
        candidates: texts an image, and images a text, that are scored; at least `topk`.
        topk: length of the lists.
        embeddings: "regions" (mean of the regions) or "pooled" (the whole-image feature) against
            the mean of the words, at unit length; or vectors (I, E) and (T, E) of your own, as
            they are.
        index: faiss factory string: "Flat" is exact; "IVF100,Flat" and "HNSW32" are not. Or two
            faiss indexes of these vectors, of images and of texts, such as `open_shards` gives.
        index_options: of faiss, such as "nprobe=10" or "efSearch=64"; of an index made here.
        memory: bytes that scoring may take, as of `score_matrix`. The index takes those of its
            vectors, and a candidate pair some 100 bytes.
        progress: show a bar.

    Returns:
        Lists of min(topk, gallery) items, -1 with a score of -inf where an index that is not exact
        brought fewer.

    Raises:
        ImportError: no faiss.
        ValueError: topk below 1 or above candidates; embeddings that fit neither each other nor
            the features; an index that faiss cannot make.
    """
    if not 1 <= topk <= candidates:
        raise ValueError(f"topk must be from 1 to candidates, got {topk} of {candidates}")
    if isinstance(embeddings, str):
        v, w = image_embeddings(images, embeddings), text_embeddings(texts)
    else:
        v, w = (torch.as_tensor(x).detach().float().cpu() for x in embeddings)
    for name, vectors, items in (("images", v, images), ("texts", w, texts)):
        if vectors.ndim != 2 or len(vectors) != len(items) or vectors.shape[1] != v.shape[-1]:
            raise ValueError(
                f"embeddings must be (I, E) and (T, E), got {tuple(v.shape)} and "
                f"{tuple(w.shape)} for {len(items)} {name}"
            )
    rows, columns = candidate_pairs(v, w, candidates, index, index_options)
    near = clusters(w, max(1, len(w) // CELL))
    scores = score_pairs(model, images, texts, rows, columns, near, memory, progress)
    k_texts, k_images = min(topk, len(texts)), min(topk, len(images))
    return TopK(
        *best_of_pairs(rows, columns, scores, len(images), k_texts),
        *best_of_pairs(columns, rows, scores, len(texts), k_images),
    )


def candidate_pairs(
    image_vectors: Tensor,
    text_vectors: Tensor,
    candidates: int,
    index: str | tuple[Any, Any] = "Flat",
    index_options: str = "",
) -> tuple[Tensor, Tensor]:
    """Rows and columns (P,) of all pairs that either direction puts among its first.

    Args:
        image_vectors, text_vectors: (I, E) and (T, E) fp32; near is a high inner product.
        candidates: how many an item asks for.
        index, index_options: as of `search`.
    """
    of_images, of_texts = (index, index) if isinstance(index, str) else index
    texts = _nearest(text_vectors, image_vectors, candidates, of_texts, index_options)
    images = _nearest(image_vectors, text_vectors, candidates, of_images, index_options)
    width = len(text_vectors)
    keys = []
    for found, queries_are_images in ((texts, True), (images, False)):
        query = torch.arange(len(found))[:, None]
        key = query * width + found if queries_are_images else found * width + query
        keys.append(key[found >= 0])  # -1 is nobody
    key = torch.cat(keys).unique()
    return key // width, key % width


def make_index(gallery: Tensor, factory: str, options: str = "") -> Any:
    """A faiss index that holds the gallery (N, E) fp32; near is a high inner product.

    Raises:
        ImportError: no faiss.
        ValueError: one that faiss cannot make.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError('search needs faiss: pip install "ascl-plugin[search]"') from error
    vectors = gallery.contiguous().numpy()
    try:
        index = faiss.index_factory(gallery.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if options:
            space: Any = faiss.ParameterSpace()
            space.set_index_parameters(index, options)
        index.train(vectors)
        index.add(vectors)
    except RuntimeError as error:
        raise ValueError(
            f"faiss cannot make an index {factory!r} {options!r} of {len(gallery)} vectors: {error}"
        ) from error
    return index


def _nearest(gallery: Tensor, queries: Tensor, count: int, index: Any, options: str) -> Tensor:
    """(Q, min(count, gallery)) int64, -1 where the index finds fewer."""
    if isinstance(index, str):
        index = make_index(gallery, index, options)
    elif (index.ntotal, index.d) != tuple(gallery.shape):
        raise ValueError(
            f"an index of {index.ntotal} vectors of {index.d} numbers was given for "
            f"{tuple(gallery.shape)}"
        )
    return torch.from_numpy(index.search(queries.contiguous().numpy(), min(count, len(gallery)))[1])


def clusters(vectors: Tensor, count: int) -> Tensor:
    """(N,) for each vector the nearest of `count` evenly spaced ones of them."""
    pivots = vectors[torch.linspace(0, len(vectors) - 1, count).long()]
    return torch.cat([(part @ pivots.T).argmax(1) for part in vectors.split(2**14)])


def search_report(
    model: Any,
    images: ImageFeatures,
    texts: TextFeatures,
    candidates: int = 100,
    topk: int = 10,
    *,
    memory: int = 2**30,
    **options: Any,
) -> dict[str, float]:
    """What two stages find, and cost, beside scoring everything: on a size where both fit.

    Args:
        model, images, texts, candidates, topk, memory, options: as of `search`.

    Returns:
        `i2t_recall`, `t2i_recall`: share of the exact first `topk` found, in percent;
        `search_seconds`, `exact_seconds`: wall time, index included.
    """
    start = time.perf_counter()
    found = search(model, images, texts, candidates, topk, memory=memory, **options)
    middle = time.perf_counter()
    exact = score_matrix(model, images, texts, topk=topk, memory=memory)
    end = time.perf_counter()
    return {
        "i2t_recall": list_recall(found.i2t_ids, exact.i2t_ids),
        "t2i_recall": list_recall(found.t2i_ids, exact.t2i_ids),
        "search_seconds": middle - start,
        "exact_seconds": end - middle,
    }


def list_recall(found: Tensor, exact: Tensor) -> float:
    """Percent of the items of `exact` (Q, k) that are in the same row of `found` (Q, any)."""
    rows = zip(found.split(1024), exact.split(1024), strict=True)
    hits = sum(int((e[:, :, None] == f[:, None, :]).any(2).sum()) for f, e in rows)
    return 100 * hits / exact.numel()
