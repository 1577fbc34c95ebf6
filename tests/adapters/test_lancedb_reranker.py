"""`LanceDBReranker` in an embedded database: corrected scores, in order, for every metric."""

from __future__ import annotations

import numpy as np
import pytest

from ascl_plugin import Reranker

lancedb = pytest.importorskip("lancedb", reason='pip install "ascl-plugin[lancedb]"')

from ascl_plugin.adapters.lancedb_reranker import LanceDBReranker  # noqa: E402

METRICS = ("cosine", "dot", "l2")


@pytest.fixture(scope="module")
def vectors():
    """Unit vectors of 20 gallery items, 30 bank queries and 3 queries."""
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=(n, 4)) + 0.5 for n in (20, 30, 3)]
    return [(v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in drawn]


@pytest.fixture(scope="module")
def table(vectors, tmp_path_factory):
    rows = [{"id": i, "vector": v, "words": f"item {i}"} for i, v in enumerate(vectors[0])]
    found = lancedb.connect(tmp_path_factory.mktemp("db")).create_table("t", rows)
    found.create_fts_index("words")
    return found


@pytest.fixture(scope="module")
def reranker(vectors):
    return Reranker("nnn", alpha=1).fit(bank_vectors=vectors[1], gallery_vectors=vectors[0])


@pytest.mark.parametrize("metric", METRICS)
def test_vector_search_is_by_corrected_scores(table, vectors, reranker, metric):
    wanted = reranker.transform(vectors[2] @ vectors[0].T)
    adapter = LanceDBReranker(reranker, metric=metric)
    for query, scores in zip(vectors[2], wanted, strict=True):
        found = table.search(query).metric(metric).limit(20).rerank(adapter, "").to_arrow()
        relevance = np.array(found["_relevance_score"].to_pylist())
        assert (np.diff(relevance) <= 0).all() and "_distance" not in found.column_names
        np.testing.assert_allclose(relevance, scores[found["id"].to_pylist()], atol=1e-5)
        assert found["id"][0].as_py() == scores.argmax()


def test_hybrid_search_fuses_ranks(table, vectors, reranker):
    """The item whose number is asked for is found by words alone, at rank 1: 1/61."""
    scores = reranker.transform(vectors[2][0] @ vectors[0].T)
    order = scores.argsort()[::-1].tolist()
    adapter = LanceDBReranker(reranker, query_vector=vectors[2][0], return_score="all")
    search = table.search(query_type="hybrid").vector(vectors[2][0]).text("7").metric("cosine")
    found = search.limit(20).rerank(adapter).to_arrow()
    relevance = dict(
        zip(found["id"].to_pylist(), found["_relevance_score"].to_pylist(), strict=True)
    )
    assert list(relevance.values()) == sorted(relevance.values(), reverse=True)
    for item, value in relevance.items():
        words = 1 / 61 if item == 7 else 0
        assert value == pytest.approx(1 / (61 + order.index(item)) + words, abs=1e-6)
    assert {"_distance", "_score"} <= set(found.column_names)


def test_errors(table, vectors, reranker):
    with pytest.raises(ValueError, match="metric must be one of cosine, dot, l2, got 'hamming'"):
        LanceDBReranker(reranker, metric="hamming")
    with pytest.raises(ValueError, match="no bias to export"):
        LanceDBReranker(Reranker("qb_norm").fit(vectors[1] @ vectors[0].T))
    search = table.search(vectors[2][0]).limit(5)
    with pytest.raises(ValueError, match="no column 'place' in the results"):
        search.rerank(LanceDBReranker(reranker, column="place"), "").to_arrow()
    both = table.search(query_type="hybrid").vector(vectors[2][0]).text("7")
    with pytest.raises(ValueError, match="hybrid search scales its distances; pass query_vector="):
        both.rerank(LanceDBReranker(reranker)).to_arrow()
    few = Reranker("nnn").fit(vectors[1] @ vectors[0][:2].T)
    with pytest.raises(ValueError, match="was fitted on a gallery of 2"):
        search.rerank(LanceDBReranker(few), "").to_arrow()
