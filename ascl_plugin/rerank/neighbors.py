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
    source = scores.T if embeddings is None else embeddings
    wide = torch.float64 if source.dtype == torch.float64 else torch.float32
    vectors = source.to(scores.device, wide)
    # a cosine ignores scale, the squares on the way to it overflow or vanish
    vectors = vectors / vectors.abs().amax().clamp_min(torch.finfo(wide).tiny)
    if embeddings is None:
        vectors -= vectors.mean(dim=0)
    vectors = normalize(vectors, dim=1)
    found = []
    for rows in row_chunks(texts, texts):
        similarity = vectors[rows] @ vectors.T
        similarity[:, rows].fill_diagonal_(torch.inf)
        found.append(top_candidates(similarity, count))
    return torch.cat(found)
