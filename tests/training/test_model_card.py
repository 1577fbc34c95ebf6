"""The card of a model: what it is, where from, and how good, as data."""

from __future__ import annotations

import pytest

pytest.importorskip("tabulate", reason="extra `recipes`")

from ascl_plugin.metrics.result_row import ResultRow, SplitResults
from ascl_plugin.training.model_card import write_card


def test_a_card_by_hand(tmp_path):
    metrics = {f"{way}_r{k}": 50.0 for way in ("i2t", "t2i") for k in (1, 5, 10)} | {"rsum": 300.0}
    rows = [ResultRow("initial", metrics), ResultRow("reranked", metrics, transductive=True)]
    write_card(
        tmp_path, "night run", {"image encoder": "grid", "fusion": "late"}, "my photos",
        {"train": 1200, "test": 30}, 7, ["recipe.py", "--name", "night run"],
        {"test": SplitResults(rows, "full", {}, {})},
    )  # fmt: skip
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: ascl_plugin\n")
    for said in (
        "# night run", "image encoder grid, fusion late", "- data: my photos; train 1,200 images",
        "- seed: 7", "`recipe.py --name 'night run'`", "### test", "300.0", "(transductive)",
    ):  # fmt: skip
        assert said in card
    assert "LEAK" not in card and "{" not in card
