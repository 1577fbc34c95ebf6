"""Re-ranking of what faiss finds, for galleries no score matrix can hold.

    pip install "ascl-plugin[search]"
    python examples/rerank_faiss.py

Put vectors of your own model in place of the made ones; for millions, in place of the exact
index an approximate one, `faiss.index_factory(width, "IVF4096,Flat", faiss.METRIC_INNER_PRODUCT)`.
"""

from __future__ import annotations

import faiss
import numpy as np
from made_embeddings import made_embeddings, recall

from ascl_plugin import RerankedLists, rerank_candidates


def index_of(vectors: np.ndarray) -> faiss.Index:
    """Search exactly, by inner product."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def main(count: int = 1000, length: int = 50) -> dict[str, RerankedLists]:
    """Prints a table of recalls; returns the lists of each of its lines.

    Args:
        count: images.
        length: of the lists.
    """
    images, texts, owner = made_embeddings(count)
    text_index = index_of(texts)
    i2t_scores, i2t_ids = text_index.search(images, length)
    t2i_scores, t2i_ids = index_of(images).search(texts, length)
    lists = (i2t_ids, i2t_scores, t2i_ids, t2i_scores)
    _, near = text_index.search(texts, 3)  # each text, and the two nearest to it

    results = {
        "as found": RerankedLists(*lists),
        "re-ranked": rerank_candidates(*lists),
        "with 2 neighbours": rerank_candidates(*lists, neighbors=near),
    }
    print(f"{'':18}  I2T R@1    @5    @10  T2I @1    @5    @10")
    for name, found in results.items():
        print(f"{name:18}    {recall(found.i2t_ids, found.t2i_ids, owner)}")
    return results


if __name__ == "__main__":
    main()
