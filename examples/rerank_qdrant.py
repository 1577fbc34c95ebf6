"""Re-ranking of what a vector database finds: Qdrant, in this process (`:memory:`) or on a server.

    pip install "ascl-plugin[examples]"
    python examples/rerank_qdrant.py

The client's local mode is for trying out: it compares with every vector. `QdrantClient(url=...)`
takes the same calls.
"""

from __future__ import annotations

import numpy as np
from made_embeddings import made_embeddings, recall
from qdrant_client import QdrantClient, models

from ascl_plugin import RerankedLists, rerank_candidates


def store(client: QdrantClient, name: str, vectors: np.ndarray) -> None:
    """Make a collection; the id of a vector is its row."""
    like = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
    client.create_collection(name, vectors_config=like)
    client.upload_collection(name, vectors=vectors, ids=range(len(vectors)))


def nearest(
    client: QdrantClient, name: str, queries: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and scores (Q, length), best first; -1 where fewer are found."""
    ids, scores = np.full((len(queries), length), -1), np.zeros((len(queries), length), np.float32)
    asked = [models.QueryRequest(query=query.tolist(), limit=length) for query in queries]
    for row, answer in enumerate(client.query_batch_points(name, requests=asked)):
        for place, point in enumerate(answer.points):
            ids[row, place], scores[row, place] = point.id, point.score
    return ids, scores


def main(count: int = 200, length: int = 50) -> dict[str, RerankedLists]:
    """Prints a table of recalls; returns the lists of each of its lines.

    Args:
        count: images.
        length: of the lists.
    """
    images, texts, owner = made_embeddings(count)
    client = QdrantClient(":memory:")
    store(client, "images", images)
    store(client, "texts", texts)
    lists = (*nearest(client, "texts", images, length), *nearest(client, "images", texts, length))

    results = {"as found": RerankedLists(*lists), "re-ranked": rerank_candidates(*lists)}
    print(f"{'':18}  I2T R@1    @5    @10  T2I @1    @5    @10")
    for name, found in results.items():
        print(f"{name:18}    {recall(found.i2t_ids, found.t2i_ids, owner)}")
    return results


if __name__ == "__main__":
    main()
