"""The experiment of Figure 7, on made features."""

from __future__ import annotations

import pytest

from ascl_plugin.experiments.query_length import bucket_names, experiment, measure
from ascl_plugin.metrics.protocols import query_results
from ascl_plugin.metrics.recall import retrieval_metrics

pytest.importorskip("matplotlib", reason='needs the extra "report"')


def test_buckets_are_of_their_captions(fake_study):
    trained = fake_study().trained("full", 0)
    rank = query_results(trained.sim, trained.caption_to_image).t2i_rank
    found = measure(trained, [1, 4, 15], 36)
    assert [bucket["words"] for bucket in found] == ["1-3", "4-14", "15+"]
    for bucket, (low, high) in zip(found, [(1, 3), (4, 14), (15, 99)], strict=True):
        own = [int(rank[t]) for t in range(36) if low <= t % 20 + 1 <= high]
        assert bucket["captions"] == len(own)
        for k in (1, 5, 10):
            assert bucket["recalls"][f"T2I R@{k}"] == pytest.approx(
                100 * sum(r <= k for r in own) / len(own)
            )
    total = sum(bucket["captions"] * bucket["recalls"]["T2I R@1"] for bucket in found) / 36
    metrics = retrieval_metrics(trained.sim, trained.caption_to_image)
    assert total == pytest.approx(metrics["t2i_r1"])


def test_the_sample_is_the_same_for_all_models_and_seeds(fake_study):
    study = fake_study()
    result = experiment(study, {"captions": 20, "lengths": [1, 8]})
    rows = result.tables[0].rows
    assert [(row["model"], row["words"]) for row in rows] == [
        ("full", "1-7"), ("full", "8+"), ("none", "1-7"), ("none", "8+"),
    ]  # fmt: skip
    assert rows[0]["captions"] == rows[2]["captions"]
    assert rows[0]["captions"] + rows[1]["captions"] == 20
    assert "±" in rows[0]["T2I R@5"]
    sizes = [[bucket["captions"] for bucket in study.cell("query_length", key, None)]
             for _, key in study.made]  # fmt: skip
    assert sizes == [sizes[0]] * 4
    assert f"n={sizes[0][0]}" in (study.folder / "query_length" / "recall.svg").read_text()


def test_a_bucket_without_captions_is_left_out(fake_study):
    found = measure(fake_study().trained("full", 0), [1, 10, 50], 1000)
    assert [bucket["words"] for bucket in found] == ["1-9", "10-49"]
    assert sum(bucket["captions"] for bucket in found) == 36


def test_bucket_names():
    assert bucket_names([1]) == ["1+"]
    assert bucket_names([1, 10, 12, 13]) == ["1-9", "10-11", "12", "13+"]


@pytest.mark.parametrize("lengths", [[], [2, 5], [1, 5, 5], [1, 9, 5], [1, 2.5]])
def test_lengths_must_rise_from_one(fake_study, lengths):
    with pytest.raises(ValueError, match="lengths must rise from 1"):
        experiment(fake_study(), {"lengths": lengths})
