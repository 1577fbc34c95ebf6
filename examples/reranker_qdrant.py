"""A re-ranker fitted on past queries, inside Qdrant: no cost when a query is asked.

    pip install "ascl-plugin[examples]"
    python examples/reranker_qdrant.py

The bias of a gallery item is one more number of its vector, and a query has a 1 there. The
collection must be of inner products (DOT): COSINE would scale the vectors. The client's local mode
is for trying out; `QdrantClient(url=...)` takes the same calls.
"""

from __future__ import annotations

import numpy as np
from made_embeddings import made_embeddings
from qdrant_client import QdrantClient, models

from ascl_plugin import Reranker


def first(gallery: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the nearest item of each query."""
    client = QdrantClient(":memory:")
    like = models.VectorParams(size=gallery.shape[1], distance=models.Distance.DOT)
    client.create_collection("images", vectors_config=like)
    client.upload_collection("images", vectors=gallery, ids=range(len(gallery)))
    asked = [models.QueryRequest(query=query.tolist(), limit=1) for query in queries]
    answers = client.query_batch_points("images", requests=asked)
    return np.array([answer.points[0].id for answer in answers])


def main(count: int = 200, asked: int = 200) -> dict[str, np.ndarray]:
    """Prints how often a text's own image comes first; returns the first images.

    Args:
        count: images; texts beyond the first `asked` are the bank.
        asked: texts that are searched for.
    """
    images, texts, owner = made_embeddings(count)
    order = np.random.default_rng(0).permutation(len(texts))
    queries, bank = order[:asked], order[asked:]
    reranker = Reranker("nnn")
    reranker.fit(bank_vectors=texts[bank], gallery_vectors=images)

    found = {
        "as found": first(images, texts[queries]),
        "corrected": first(
            reranker.augment_gallery(images), reranker.augment_queries(texts[queries])
        ),
    }
    for name, ids in found.items():
        print(f"{name:12} T2I R@1 {100 * np.mean(ids == owner[queries]):5.1f}")
    return found


if __name__ == "__main__":
    main()
