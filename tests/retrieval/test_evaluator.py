"""Evaluation of a split from given scores: protocols, re-ranking within folds, intervals."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ascl_plugin.fusion import CrossModalFusion, PooledSimilarity
from ascl_plugin.metrics import protocols
from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.report.terminal import print_results
from ascl_plugin.reranking import rerank

pytest.importorskip("datasets", reason="extra `recipes`")
pytest.importorskip("yaml", reason="extra `recipes`")
from ascl_plugin.retrieval.evaluator import Evaluator

OWNERS = np.arange(60) // 3
SIM = torch.randn(20, 60, generator=torch.Generator().manual_seed(0))
SIM += 2 * (torch.from_numpy(OWNERS) == torch.arange(20)[:, None])
ROWS = {"captions": [["a"] * 3] * 20}


class Scored(Evaluator):
    scored = 0

    def __init__(self):
        pass

    def score(self, rows, texts):
        self.scored += 1
        return SIM


def mean_of_folds(transform):
    """Metrics of each fold of four images, cut out before anything else is done to it."""
    found = []
    for first in range(0, 20, 4):
        columns = slice(3 * first, 3 * first + 12)
        i2t, t2i = transform(SIM[first : first + 4, columns], OWNERS[:12])
        found.append(retrieval_metrics(i2t, OWNERS[:12], t2i=t2i))
    return {name: np.mean([one[name] for one in found]) for name in found[0]}


@pytest.mark.filterwarnings("ignore:rerank. caption_groups")
def test_coco_1k_reranks_within_each_fold(monkeypatch):
    monkeypatch.setattr(protocols, "FOLD_IMAGES", 4)
    found = Scored().evaluate(ROWS, {"k": 5}, oracle=True, protocol="coco_1k")

    def reranked(sim, owners, **options):
        after = rerank(sim, k=5, **options)
        return after.i2t, after.t2i

    for name, expected in {
        "initial": mean_of_folds(lambda sim, owners: (sim, sim)),
        "reranked": mean_of_folds(reranked),
        "oracle: label groups": mean_of_folds(
            lambda sim, owners: reranked(sim, owners, caption_groups=owners)
        ),
    }.items():
        assert {k: found[name].metrics[k] for k in expected} == pytest.approx(expected), name


def test_a_protocol_that_does_not_fit_is_refused_before_scoring():
    evaluator = Scored()
    with pytest.raises(ValueError, match="five folds of 1000 images, got 20 images"):
        evaluator.evaluate(ROWS, protocol="coco_1k")
    assert evaluator.scored == 0


def test_intervals_are_found_and_printed(capsys):
    found = Scored().evaluate(ROWS, {"k": 5}, intervals=True)
    for row in found.rows:
        for name, (low, high) in row.intervals.items():
            assert low <= row.metrics[name] <= high, (row.name, name)
    print_results(found, "test, 20 images")
    low, high = found["initial"].intervals["rsum"]
    assert f"{low:.1f} to {high:.1f}" in capsys.readouterr().out
    assert not Scored().evaluate(ROWS)["initial"].intervals


class Paired(Scored):
    """Leaks as it says: every pair is right."""

    def __init__(self, fusion):
        self.model = nn.Module()
        self.model.fusion = fusion

    def paired_score(self, rows, texts, caption_to_image):
        return SIM + 100 * (caption_to_image == torch.arange(20)[:, None])


def test_the_paired_row_stands_beside_honest_ones():
    """Re-ranking and its oracle see honest scores alone; intervals are of every row."""
    honest = Scored().evaluate(ROWS, {"k": 5})
    found = Paired(CrossModalFusion(8, 2)).evaluate(
        ROWS, {"k": 5}, protocol="paired", intervals=True
    )
    assert [replace(row, intervals={}) for row in found.rows[:2]] == honest.rows
    paired = found["paired (leaks)"]
    assert paired.metrics["rsum"] == 600 > honest["initial"].metrics["rsum"]
    assert "attends to its own image" in paired.leaks
    assert all(row.intervals for row in found.rows)
    assert [row.transductive for row in found.rows] == [False, True, False]
    evaluator = Paired(PooledSimilarity())
    with pytest.raises(TypeError, match=r"needs a CrossModalFusion; .* is PooledSimilarity"):
        evaluator.evaluate(ROWS, protocol="paired")
    assert evaluator.scored == 0


@pytest.mark.parametrize(("terminal", "no_color"), [(True, ""), (True, "1"), (False, "")])
def test_rows_that_leak_are_red_on_a_terminal(terminal, no_color, capsys, monkeypatch):
    results = Paired(CrossModalFusion(8, 2)).evaluate(ROWS, protocol="paired", intervals=True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("NO_COLOR", no_color)
    print_results(results, "test")
    out = capsys.readouterr().out
    assert "leaks: each text attends to its own image" in out
    red = [line for line in out.splitlines() if "\033[31m" in line]
    if terminal and not no_color:
        assert len(red) == 3  # recalls, ranks, and their intervals
        assert all(x.startswith("\033[31m| paired (leaks)") and x.endswith("\033[0m") for x in red)
    else:
        assert not red and "| paired (leaks)" in out
