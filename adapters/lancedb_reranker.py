"""A fitted `Reranker` as a reranker of LanceDB, for vector and hybrid search.

``table.search(vector).metric("cosine").limit(100).rerank(LanceDBReranker(reranker), "")``, the
query's text being of no account; see `examples/reranker_lancedb.py`. Only rows that the search
returns are put in another order. Where the table can be written anew, store
``reranker.augment_gallery(vectors)`` instead: the search itself is then by corrected scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ascl_plugin.reranking.reranker import Reranker

try:
    import pyarrow as pa
    from lancedb import rerankers
except ImportError as error:
    raise ImportError(
        'the reranker of LanceDB needs lancedb: pip install "ascl-plugin[lancedb]"'
    ) from error

# score of a `_distance`, by the metric of the search; for unit vectors all three are one score
SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cosine": lambda distance: 1 - distance,
    "dot": lambda distance: 1 - distance,
    "l2": lambda distance: 1 - distance / 2,
}
RANK_CONSTANT = 60  # of reciprocal rank fusion (Cormack et al., SIGIR 2009)


class LanceDBReranker(rerankers.Reranker):
    """Corrected scores as `_relevance_score`, in descending order.

    Vector search: the score of a row plus the bias of its gallery item. Hybrid search: reciprocal
    rank fusion of that order and the order of the full-text search; LanceDB hands over distances
    scaled to 0 to 1 there, so the scores are computed anew from the vectors. Full-text search alone
    has no scores to correct.

    Args:
        reranker: fitted, additive, on scores of the metric of the search.
        column: the column that holds the position of a row in the gallery of the fit, 0 to G - 1.
        metric: that of the search: "cosine"; "dot"; "l2", for unit vectors.
        query_vector: (D,), for hybrid search: the vector that is searched for.
        vector_column: for hybrid search: the column of the vectors.
        return_score: "relevance", or "all" to keep the columns `_distance` and `_score`.

    Raises:
        ValueError: a reranker that is not fitted or not additive, an unknown metric.
    """

    def __init__(
        self,
        reranker: Reranker,
        column: str = "id",
        metric: str = "cosine",
        query_vector: np.ndarray | None = None,
        vector_column: str = "vector",
        return_score: str = "relevance",
    ) -> None:
        super().__init__(return_score)
        if metric not in SCORES:
            raise ValueError(f"metric must be one of {', '.join(SCORES)}, got {metric!r}")
        self.bias, self.column, self.metric = np.asarray(reranker.gallery_bias), column, metric
        self.query_vector, self.vector_column = query_vector, vector_column

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        """Return the rows of a vector search by corrected score."""
        distance = np.asarray(vector_results["_distance"].to_pylist(), dtype=np.float32)
        scored = _ranked(vector_results, self._corrected(vector_results, distance))
        return self._keep_relevance_score(scored)

    def rerank_hybrid(
        self, query: str, vector_results: pa.Table, fts_results: pa.Table
    ) -> pa.Table:
        """Return the rows of both searches by reciprocal rank fusion."""
        found: dict[int, float] = {}
        if self.query_vector is None:
            raise ValueError(
                "LanceDBReranker: hybrid search scales its distances; pass query_vector="
            )
        distance = self._distances(vector_results)
        ranked = _ranked(vector_results, self._corrected(vector_results, distance))
        for part in (ranked, fts_results):
            for rank, row in enumerate(part["_rowid"].to_pylist()):
                found[row] = found.get(row, 0.0) + 1 / (rank + 1 + RANK_CONSTANT)
        if self.score == "all":
            merged = self._merge_and_keep_scores(vector_results, fts_results)
        else:
            merged = self.merge_results(vector_results, fts_results)
        relevance = np.array([found[row] for row in merged["_rowid"].to_pylist()], np.float32)
        return self._keep_relevance_score(_ranked(merged, relevance))

    def _distances(self, results: pa.Table) -> np.ndarray:
        """Return the distance of each row from the query vector, (R,) float32."""
        vectors = np.asarray(_column(results, self.vector_column), dtype=np.float32)
        query = np.asarray(self.query_vector, dtype=np.float32)
        vectors = vectors.reshape(-1, len(query))
        if self.metric == "l2":
            return np.square(vectors - query).sum(axis=1)
        product = vectors @ query
        if self.metric == "cosine":
            product /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
        return 1 - product

    def _corrected(self, results: pa.Table, distance: np.ndarray) -> np.ndarray:
        """Return the corrected score of each row, (R,) float32."""
        at = np.asarray(_column(results, self.column), dtype=np.int64)
        if len(at) and not 0 <= at.min() <= at.max() < len(self.bias):
            raise ValueError(
                f"LanceDBReranker: column {self.column!r} holds {at.min()} to {at.max()}, the "
                f"Reranker was fitted on a gallery of {len(self.bias)}"
            )
        return SCORES[self.metric](distance) + self.bias[at].astype(np.float32)


def _column(results: pa.Table, name: str) -> list[Any]:
    if name not in results.column_names:
        raise ValueError(
            f"LanceDBReranker: no column {name!r} in the results "
            f"({', '.join(results.column_names)}); select it, or name another"
        )
    return results[name].to_pylist()


def _ranked(table: pa.Table, relevance: np.ndarray) -> pa.Table:
    """Return the table with `_relevance_score`, descending, ties in their order."""
    order = np.argsort(-relevance, kind="stable")
    scores = pa.array(relevance[order], type=pa.float32())
    return table.take(pa.array(order)).append_column("_relevance_score", scores)
