"""`tune_rerank`: what it tries, what it refuses to lose, and what it gives back."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch

from ascl_plugin import available, rerank, retrieval_metrics, tune_rerank
from ascl_plugin.metrics.protocols import query_results
from ascl_plugin.metrics.statistics import paired_test
from ascl_plugin.ranking import top_candidates
from ascl_plugin.reranking import tune


def noisy_captions(images=60, captions=5, seed=0):
    """Scores and owners of captions that are their image and noise; some images score high."""
    draw = torch.Generator().manual_seed(seed)
    image = torch.randn(images, 16, generator=draw)
    text = image.repeat_interleave(captions, 0)
    text = text + 1.5 * torch.randn(text.shape, generator=draw)
    sim = torch.nn.functional.normalize(image) @ torch.nn.functional.normalize(text).T
    sim = sim + 0.1 * torch.randn(images, 1, generator=draw)
    return sim.numpy(), np.arange(len(text)) // captions


def test_trials_are_what_rerank_gives():
    """The shared lists change nothing: every trial has the metrics of a plain `rerank`."""
    sim, owner = noisy_captions()
    grid = {"k": [3, 20], "reverse_k": [None, 4], "text_neighbors": [3, 1, 400], "mix": [0, 0.4]}
    tuned = tune_rerank(sim, owner, grid)
    assert len(tuned.trials) == 1 + 24
    assert tuned.trials[0].options == {"method": "none"}
    for trial in tuned.trials:
        after = rerank(sim, **trial.options)
        assert trial.metrics == retrieval_metrics(after.i2t, owner, t2i=after.t2i)


def test_takes_the_most_gain_without_loss():
    sim, owner = noisy_captions()
    tuned = tune_rerank(sim, owner)
    before = tuned.trials[0].metrics
    allowed = [
        t.metrics["rsum"]
        for t in tuned.trials
        if all(t.metrics[x] >= before[x] - 0.1 - 1e-9 for x in ("i2t_r1", "t2i_r1"))
    ]
    assert before == retrieval_metrics(sim, owner)
    assert tuned.metrics["rsum"] == max(allowed) > before["rsum"]
    after = rerank(sim, **tuned.options)
    assert retrieval_metrics(after.i2t, owner, t2i=after.t2i) == tuned.metrics


def losing():
    """A matrix where re-ranking raises Rsum and lowers R@1 of images; drawn until it does."""
    sim, owner = noisy_captions(images=10, seed=3)
    for seed in range(100):
        noisy = sim + 0.3 * np.random.default_rng(seed).normal(size=sim.shape)
        before, r = retrieval_metrics(noisy, owner), rerank(noisy)
        after = retrieval_metrics(r.i2t, owner, t2i=r.t2i)
        if after["rsum"] > before["rsum"] and after["i2t_r1"] < before["i2t_r1"]:
            return noisy, owner
    raise AssertionError("no such matrix")


def test_what_loses_does_not_qualify():
    sim, owner = losing()
    tuned = tune_rerank(sim, owner, {"k": [20]})
    assert tuned.options == {"method": "none"} and tuned.gain is None and not tuned.refused
    assert [t.qualifies for t in tuned.trials] == [True, False]
    assert tuned.metrics == retrieval_metrics(sim, owner)
    tuned = tune_rerank(sim, owner, {"k": [20]}, max_loss=100, allow_uncertain=True)
    assert tuned.options == {"k": 20}


def test_the_gain_has_an_interval_and_zero_in_it_is_no_choice():
    """Two of three images keep their ranks: bootstrap samples without the third gain nothing."""
    sim = np.array([[0.8, 0.7, 0.6], [0.9, 0.2, 0.3], [0.1, 0.5, 0.95]])
    owner = [1, 0, 2]  # image 0 gains R@1
    tuned = tune_rerank(sim, owner, {"k": [20]})
    assert tuned.options == {"method": "none"} and tuned.refused
    assert tuned.best.options == {"k": 20} and tuned.metrics == tuned.trials[0].metrics
    assert tuned.gain.value == pytest.approx(100 / 3) and tuned.gain.low == 0
    told = tune_rerank(sim, owner, {"k": [20]}, allow_uncertain=True)
    assert told.options == {"k": 20} and not told.refused
    sim, owner = noisy_captions()
    tuned = tune_rerank(sim, owner, {"k": [20]})
    after = rerank(sim)
    wanted = paired_test(
        query_results(sim, owner), query_results(after.i2t, owner, t2i=after.t2i), resamples=2000
    )["rsum"]
    assert tuned.gain == wanted and 0 < wanted.low < wanted.value < wanted.high


def test_all_methods_are_tried_by_default():
    """Those with all the fixed options; bidirectional ones still share lists."""
    sim, owner = noisy_captions(images=12)
    tuned = tune_rerank(sim, owner)
    found = {t.options.get("method", "bidirectional") for t in tuned.trials[1:]}
    assert found == set(tune.GRIDS) == set(available("rerank")) - LEFT_OUT
    tuned = tune_rerank(sim, owner, neighbors=3)
    found = [t.options for t in tuned.trials[1:]]
    assert {o["method"] for o in found} == {"csls", "nnn", "local_scaling"}
    assert all(o["neighbors"] == 3 for o in found)
    assert len(tune_rerank(sim, owner, method="nnn").trials) == 1 + 16


# without a bank they are inverted_softmax and dbnorm
LEFT_OUT = {"none", "qb_norm", "dbnorm_dynamic"}


def test_a_rank_is_lowered():
    sim, owner = noisy_captions()
    tuned = tune_rerank(
        sim, owner, {"k": [5, 20, 60]}, metric="t2i_meanr", max_loss=100, allow_uncertain=True
    )
    assert tuned.metrics["t2i_meanr"] == min(t.metrics["t2i_meanr"] for t in tuned.trials)
    assert tuned.metrics["t2i_meanr"] < max(t.metrics["t2i_meanr"] for t in tuned.trials)


def test_other_methods_and_lists_of_options():
    sim, owner = noisy_captions()
    grid = [{"method": "csls", "neighbors": 5}, {"method": "bidirectional", "k": 7}]
    tuned = tune_rerank(sim, owner, grid, max_loss=100)
    assert [t.options for t in tuned.trials[1:]] == grid
    csls = rerank(sim, method="csls", neighbors=5)
    assert tuned.trials[1].metrics == retrieval_metrics(csls.i2t, owner, t2i=csls.t2i)
    tuned = tune_rerank(sim, owner, {"neighbors": [5]}, method="csls")
    assert tuned.trials[1].options == {"method": "csls", "neighbors": 5}


def test_arrays_do_not_come_back():
    sim, owner = noisy_captions()
    embeddings = np.random.default_rng(0).normal(size=(len(owner), 4))
    tuned = tune_rerank(
        sim, owner, {"text_neighbors": [2]}, text_embeddings=embeddings, k=9, max_loss=100
    )
    assert tuned.trials[1].options == {"k": 9, "text_neighbors": 2}
    after = rerank(sim, 9, text_neighbors=2, text_embeddings=embeddings)
    assert tuned.trials[1].metrics == retrieval_metrics(after.i2t, owner, t2i=after.t2i)


def test_the_default_grid_leaves_out_what_is_fixed():
    sim, owner = noisy_captions(images=12)
    tuned = tune_rerank(sim, owner, k=4, mix=0.5)
    combinations = len(tune.GRID["reverse_k"]) * len(tune.GRID["text_neighbors"])
    assert len(tuned.trials) == 1 + combinations
    assert all(t.options["k"] == 4 and t.options["mix"] == 0.5 for t in tuned.trials[1:])


def test_lists_are_looked_up_once(monkeypatch):
    """One look at the images' lists, one at the texts' for each number of neighbours."""
    calls = []

    def counted(scores, k):
        calls.append(k)
        return top_candidates(scores, k)

    module = importlib.import_module("ascl_plugin.reranking.bidirectional")
    monkeypatch.setattr(module, "top_candidates", counted)
    sim, owner = noisy_captions(images=12)
    tune_rerank(torch.from_numpy(sim), owner, {"k": [2, 5], "mix": [0, 0.5], "text_neighbors": [1]})
    checks = [k for k in calls if k == 1]  # of options, on a matrix of one pair
    assert [k for k in calls if k > 1] == [5, 5] and len(checks) == 8


@pytest.mark.parametrize(
    ("grid", "options", "error", "message"),
    [
        ({"k": []}, {}, ValueError, "the grid is empty"),
        ([], {}, ValueError, "the grid is empty"),
        ({"k": [0]}, {}, ValueError, "k must be an integer of at least 1, got 0"),
        ({"mix": [2]}, {}, ValueError, "mix must be"),
        ({"depth": [2]}, {}, TypeError, "'bidirectional' has no option 'depth'"),
        ({"alpha": [2]}, {}, TypeError, "'bidirectional' has no option 'alpha'"),
        (None, {"method": "qb_norm"}, ValueError, "no default grid for method 'qb_norm'; give"),
        (None, {"metric": "map"}, ValueError, "no metric 'map'; there are i2t_r1"),
        ({"k": [2]}, {"text_embeddings": np.ones((2, 2))}, ValueError, "sim has"),
    ],
)  # fmt: skip
def test_errors(grid, options, error, message):
    with pytest.raises(error, match=message):
        tune_rerank(np.eye(4), np.arange(4), grid, **options)


def test_progress(capsys, monkeypatch):
    pytest.importorskip("tqdm")
    tune_rerank(np.eye(4), np.arange(4), {"k": [1, 2]}, progress=True)
    assert "2/2" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="recipes"):
        tune_rerank(np.eye(4), np.arange(4), {"k": [1, 2]}, progress=True)
