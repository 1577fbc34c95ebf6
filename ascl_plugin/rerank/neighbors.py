"""The texts nearest to a text, found from the scores or from embeddings, never from labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ascl_plugin.rerank.ranking import top_candidates
from ascl_plugin.rerank.similarity import row_chunks


def nearest_texts(scores: Tensor, count: int, embeddings: Tensor | None = None) -> Tensor:
    """G(T, K') of eq 26: the `count` texts nearest to each text, the text itself first.

    Two texts are near when they like the same images: the cosine of their columns of `scores`,
    each image's mean over all texts taken off first (an image that every text likes tells nothing
    about a text). With embeddings it is the cosine of those. Exact, in chunks.

    Args:
        scores: (I, T), finite.
        count: 1 <= count <= T.
        embeddings: (T, E), finite, or None.

    Returns:
        (T, count) int64.
    """
    texts = scores.shape[1]
    if count == 1:
        return torch.arange(texts, device=scores.device)[:, None]
    if embeddings is None:
        vectors = unit_vectors(scores.T, centred=True)
    else:
        vectors = unit_vectors(embeddings.to(scores.device))
    found = []
    for rows in row_chunks(texts, texts):
        similarity = vectors[rows] @ vectors.T
        similarity[:, rows].fill_diagonal_(torch.inf)
        found.append(top_candidates(similarity, count))
    return torch.cat(found)


def unit_vectors(source: Tensor, centred: bool = False) -> Tensor:
    """Rows whose products are cosines, (N, E) in float32, in float64 for float64.

    Args:
        source: (N, E), finite; profiles, what everything of the other modality scores with each
            item, or embeddings.
        centred: take each column's mean over the rows off first.
    """
    wide = torch.float64 if source.dtype == torch.float64 else torch.float32
    low, high = source.aminmax()
    # a cosine ignores scale, the squares on the way to it overflow or vanish
    scale = torch.maximum(-low, high).to(wide).clamp_min(torch.finfo(wide).tiny)
    vectors = source.to(wide) / scale
    if centred:
        vectors -= vectors.mean(dim=0)
    return normalize(vectors, dim=1, out=vectors)
