"""Two-stage search for galleries too large for a matrix: candidates of an index, exact scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ascl_plugin.features import ImageFeatures, TextFeatures, check_features, mean_of_places
from ascl_plugin.fusion.pooled import image_vectors
from ascl_plugin.interfaces import HasFusion, Scorer, VectorIndex
from ascl_plugin.scoring.pairs import score_pairs
from ascl_plugin.scoring.topk import TopK, best_of_pairs
from ascl_plugin.scoring.vector_index import make_index

CELL = 500  # texts of a cluster, on average
CHUNK = 2**26  # bytes of features averaged at once

Index = str | tuple[VectorIndex, VectorIndex]


@torch.no_grad()
def search(
    model: Scorer | HasFusion,
    images: ImageFeatures,
    texts: TextFeatures,
    candidates: int = 100,
    topk: int = 10,
    *,
    embeddings: str | tuple[Tensor, Tensor] = "regions",
    index: Index = "Flat",
    index_options: str = "",
    memory: int = 2**30,
    progress: bool = False,
) -> TopK:
    """Return the best texts of each image and images of each text, by exact scores of candidates.

    Candidates are the nearest items in an index of one vector an item, so results are no better
    than the alignment of these vectors between images and texts: see `list_recall`. A pair
    proposed by either direction is scored once and counts in both.

    Args:
        model: a scorer `(images, texts) -> (I, T)`, or a model whose `fusion` is one.
        images, texts: features.
        candidates: number of texts an image, and of images a text, to score; at least `topk`.
        topk: length of the lists.
        embeddings: "regions" (mean of the regions) against the mean of the words, or "pooled" (the
            whole-image feature) against `whole_texts`, at unit length; or your own vectors (I, E)
            and (T, E), used unchanged.
        index: faiss factory string: "Flat" is exact; "IVF100,Flat" and "HNSW32" are not. Or two
            faiss indexes of these vectors, of images and of texts, such as `open_shards` returns.
        index_options: of faiss, such as "nprobe=10" or "efSearch=64"; for an index made here.
        memory: bytes that scoring may take, see `score_matrix`. The index takes those of its
            vectors, and a candidate pair some 100 bytes.
        progress: show a bar.

    Returns:
        Lists of min(topk, gallery) items. An index that is not exact may leave empty slots: id -1,
        score -inf.

    Raises:
        ImportError: no faiss.
        TypeError: no features, or no scorer.
        ValueError: topk below 1 or above candidates; embeddings that fit neither each other nor
            the features; an index that faiss cannot make.
    """
    check_features(images, texts)
    if not 1 <= topk <= candidates:
        raise ValueError(f"topk must be from 1 to candidates, got {topk} of {candidates}")
    if isinstance(embeddings, str):
        v, w = image_embeddings(images, embeddings), text_embeddings(texts, embeddings)
    else:
        v, w = (torch.as_tensor(x).detach().float().cpu() for x in embeddings)
    for name, vectors, count in (("images", v, len(images)), ("texts", w, len(texts))):
        if vectors.ndim != 2 or len(vectors) != count or vectors.shape[1] != v.shape[-1]:
            raise ValueError(
                f"embeddings must be (I, E) and (T, E), got {tuple(v.shape)} and "
                f"{tuple(w.shape)} for {count} {name}"
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
    index: Index = "Flat",
    index_options: str = "",
) -> tuple[Tensor, Tensor]:
    """Return rows and columns (P,) of all pairs that either direction proposes.

    Args:
        image_vectors, text_vectors: (I, E) and (T, E) fp32; near is a high inner product.
        candidates: number of proposals of each item.
        index, index_options: see `search`.
    """
    of_images, of_texts = (index, index) if isinstance(index, str) else index
    texts = _nearest(text_vectors, image_vectors, candidates, of_texts, index_options)
    images = _nearest(image_vectors, text_vectors, candidates, of_images, index_options)
    width = len(text_vectors)
    by_image = torch.arange(len(texts))[:, None] * width + texts
    by_text = images * width + torch.arange(len(images))[:, None]
    key = torch.cat([by_image[texts >= 0], by_text[images >= 0]]).unique()
    return key // width, key % width


def _nearest(
    gallery: Tensor, queries: Tensor, count: int, index: str | VectorIndex, options: str
) -> Tensor:
    """Return ids (Q, min(count, gallery)) int64; -1 marks an empty slot."""
    if isinstance(index, str):
        nearest: VectorIndex = make_index(gallery, index, options)
    elif (index.ntotal, index.d) != tuple(gallery.shape):
        raise ValueError(
            f"an index of {index.ntotal} vectors of {index.d} numbers was given for "
            f"{tuple(gallery.shape)}"
        )
    else:
        nearest = index
    _, ids = nearest.search(queries.contiguous().numpy(), min(count, len(gallery)))
    return torch.from_numpy(ids)


def clusters(vectors: Tensor, count: int) -> Tensor:
    """Return (N,) the nearest of `count` evenly spaced vectors, for each vector."""
    pivots = vectors[torch.linspace(0, len(vectors) - 1, count).long()]
    return torch.cat([(part @ pivots.T).argmax(1) for part in vectors.split(2**14)])


def list_recall(found: Tensor, exact: Tensor) -> float:
    """Return the percentage of items of `exact` (Q, k) that are in the same row of `found`."""
    rows = zip(found.split(1024), exact.split(1024), strict=True)
    hits = sum(int((e[:, :, None] == f[:, None, :]).any(2).sum()) for f, e in rows)
    return 100 * hits / exact.numel()


@torch.no_grad()
def image_embeddings(images: ImageFeatures, of: str = "regions") -> Tensor:
    """Return (I, D), fp32 on the CPU, of unit length.

    Args:
        images: features.
        of: "regions" (mean of the real ones) or "pooled" (the whole-image feature).

    Raises:
        ValueError: another word; "pooled" if images have no such feature.
    """
    if of not in ("regions", "pooled"):
        raise ValueError(f"embeddings are of 'regions' or 'pooled', got {of!r}")
    parts = images.split(max(1, CHUNK * len(images) // max(1, images.nbytes)))
    return torch.cat([normalize(image_vectors(p, of).float(), dim=-1).cpu() for p in parts])


@torch.no_grad()
def text_embeddings(texts: TextFeatures, of: str = "regions") -> Tensor:
    """Return (T, D), fp32 on the CPU, of unit length: the mean of the real words.

    Args:
        texts: features.
        of: the images' side; against "pooled", the whole-text feature if there is one.
    """
    if of == "pooled" and texts.pooled is not None:
        return normalize(texts.pooled.float(), dim=-1).cpu()
    parts = texts.split(max(1, CHUNK * len(texts) // max(1, texts.nbytes)))
    means = (mean_of_places(part.words, part.mask).float() for part in parts)
    return torch.cat([normalize(vectors, dim=-1).cpu() for vectors in means])
