"""Models side by side: what is added to the recalls."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("datasets", reason="extra `recipes`")
from datasets import Dataset

from ascl_plugin.experiments.scoreboard import differences


def test_differences_by_hand():
    """Of two images with a caption each, "worse" takes both for the other one, seed after seed."""
    rows = Dataset.from_list([{"captions": [f"caption {i}"]} for i in range(2)])
    right, wrong = torch.eye(2), 1 - torch.eye(2)
    scores = {"first": right, "worse": wrong, "same": right}
    study = SimpleNamespace(
        seeds=[0, 1], rows=lambda: rows, scores=lambda model, seed: scores[model]
    )
    table = differences(study, ["first", "worse", "same"])
    # R@1 of 100 is lost in both directions; R@5 and R@10 of two are 100 anyway
    assert (
        table.rows[0]["Rsum"] == "-200.0" and table.rows[0]["95 % interval"] == "-200.0 to -200.0"
    )
    assert table.rows[1]["Rsum"] == "+0.0" and table.rows[1]["p"] == "1.0000"
    names = [row["model"] for row in table.rows]
    assert names == ["worse", "same", "worse, inverted softmax", "same, inverted softmax"]
    assert table.rows[2]["Rsum"] == "-200.0" and table.rows[3]["Rsum"] == "+0.0"
