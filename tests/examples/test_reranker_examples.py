"""Examples of fitted re-rankers inside an index run; the index ranks by corrected scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ascl_plugin import Reranker

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "reranker_faiss": ("faiss", "search"),
    "reranker_qdrant": ("qdrant_client", "examples"),
    "reranker_lancedb": ("lancedb", "lancedb"),
}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("reranker_*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", ["reranker_faiss", "reranker_qdrant"])
def test_the_index_finds_what_the_corrected_matrix_has_first(name, example):
    found = example(name)["main"](60, 40)
    from made_embeddings import made_embeddings

    images, texts, _ = made_embeddings(60)
    order = np.random.default_rng(0).permutation(len(texts))
    scores = texts[order] @ images.T
    reranker = Reranker("nnn").fit(scores[40:])
    corrected = reranker.transform(scores[:40])
    np.testing.assert_array_equal(found["as found"], scores[:40].argmax(1))
    np.testing.assert_array_equal(found["corrected"], corrected.argmax(1))
    assert (found["as found"] != found["corrected"]).any()


def test_lancedb_example_finds_what_the_corrected_matrix_has_first(example, capsys):
    found = example("reranker_lancedb")["main"](40, 20)
    from made_embeddings import made_embeddings

    images, texts, owner = made_embeddings(40)
    order = np.random.default_rng(0).permutation(len(texts))
    scores = texts[order] @ images.T
    reranker = Reranker("nnn").fit(scores[20:])
    for name, wanted in (("as found", scores[:20]), ("corrected", reranker.transform(scores[:20]))):
        recall = 100 * np.mean(wanted.argmax(1) == owner[order[:20]])
        assert found[name] == pytest.approx(recall)
    assert "hybrid, first: picture number" in capsys.readouterr().out
