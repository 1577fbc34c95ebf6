"""A re-ranker fitted on past queries, inside a faiss index: no cost when a query is asked.

    pip install "ascl-plugin[search]"
    python examples/reranker_faiss.py

The bias of a gallery item is one more number of its vector, and a query has a 1 there, so the
index's inner products are corrected scores. Any index of inner products will do, for example
`faiss.index_factory(width, "IVF4096,Flat", faiss.METRIC_INNER_PRODUCT)`.
"""

from __future__ import annotations

import faiss
import numpy as np
from made_embeddings import made_embeddings

from ascl_plugin import Reranker


def first(gallery: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the nearest item of each query."""
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    return index.search(queries, 1)[1][:, 0]


def main(count: int = 1000, asked: int = 1000) -> dict[str, np.ndarray]:
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
