"""A re-ranker fitted on past queries, inside LanceDB: vector and hybrid search.

    pip install "ascl-plugin[lancedb]"
    python examples/reranker_lancedb.py

The database is a folder of this machine; `lancedb.connect("db://...")` takes the same calls.
"""

from __future__ import annotations

import tempfile

import lancedb
import numpy as np
from made_embeddings import made_embeddings

from ascl_plugin import Reranker
from ascl_plugin.adapters.lancedb_reranker import LanceDBReranker


def main(count: int = 300, asked: int = 100) -> dict[str, float]:
    """Prints and returns how often a text's own image comes first.

    Args:
        count: images in the table; texts beyond the first `asked` are the bank.
        asked: texts that are searched for, one at a time.
    """
    images, texts, owner = made_embeddings(count)
    order = np.random.default_rng(0).permutation(len(texts))
    queries, bank = order[:asked], order[asked:]
    reranker = Reranker("nnn")
    reranker.fit(bank_vectors=texts[bank], gallery_vectors=images)

    with tempfile.TemporaryDirectory() as folder:
        rows = [
            {"id": i, "vector": vector, "caption": f"picture number {i}"}
            for i, vector in enumerate(images)
        ]
        table = lancedb.connect(folder).create_table("images", rows)
        table.create_fts_index("caption")
        adapter = LanceDBReranker(reranker, column="id", metric="cosine")

        def first(query: int, corrected: bool) -> int:
            search = table.search(texts[query]).metric("cosine").limit(50)
            return (search.rerank(adapter, "") if corrected else search).to_arrow()["id"][0].as_py()

        found = {
            name: 100 * float(np.mean([first(q, corrected) == owner[q] for q in queries]))
            for name, corrected in (("as found", False), ("corrected", True))
        }
        one = queries[0]
        both = table.search(query_type="hybrid").vector(texts[one]).text(f"number {owner[one]}")
        adapter = LanceDBReranker(reranker, metric="cosine", query_vector=texts[one])
        hybrid = both.metric("cosine").limit(10).rerank(adapter).to_arrow()
    for name, recall in found.items():
        print(f"{name:12} T2I R@1 {recall:5.1f}")
    print("hybrid, first:", hybrid["caption"][0])
    return found


if __name__ == "__main__":
    main()
