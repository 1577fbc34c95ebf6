"""Protocols against cases worked by hand, open_clip's and torchmetrics' metrics, and chance."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from ascl_plugin.metrics import protocols
from ascl_plugin.metrics.precision import precision_at_r
from ascl_plugin.metrics.protocols import protocol_metrics, query_results
from ascl_plugin.metrics.recall import retrieval_metrics


def noise(images, captions, seed=0, dtype=torch.float32):
    """Scores, and captions of all images in no order."""
    generator = torch.Generator().manual_seed(seed)
    sim = torch.randn(images, images * captions, generator=generator, dtype=dtype)
    return sim, torch.randperm(images * captions, generator=generator) % images


def test_precision_worked_by_hand():
    """Image 0 owns captions 0, 2, 3 (R = 3), which stand first, third and fifth in its list: the
    third and the first count, mAP@R = (1/1 + 2/3) / 3, R-precision = 2/3. Image 1 owns caption 1
    (R = 1), second in its list: both are 0. Image 2 owns caption 4, first: both are 1.
    nDCG: 1/log2(2) + 1/log2(4) + 1/log2(6) = 1 + 0.5 + 0.3869 of 1 + 0.6309 + 0.5; 0.6309; 1.
    """
    sim = torch.tensor(
        [[0.9, 0.8, 0.7, 0.1, 0.3], [0.5, 0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4, 0.5]]
    )
    average, precision, ndcg = precision_at_r(sim, torch.tensor([0, 1, 0, 0, 2]))
    assert average.tolist() == pytest.approx([(1 + 2 / 3) / 3, 0, 1])
    assert precision.tolist() == pytest.approx([2 / 3, 0, 1])
    assert ndcg.tolist() == pytest.approx([1.8869 / 2.1309, 0.6309, 1], abs=1e-4)


def test_the_same_as_torchmetrics():
    functional = pytest.importorskip(
        "torchmetrics.functional.retrieval", reason="torchmetrics, with extra `examples`"
    )
    sim, owners = noise(30, 4)
    sim = (sim + 2 * (owners == torch.arange(30)[:, None])).sigmoid()  # it wants positive scores
    found = protocol_metrics(sim, owners)
    by_image = [(row, owners == i) for i, row in enumerate(sim)]
    by_text = [(sim[:, t], torch.arange(30) == owners[t]) for t in range(120)]
    for way, queries in (("i2t", by_image), ("t2i", by_text)):
        for k in (1, 5, 10):
            hits = [functional.retrieval_hit_rate(*query, top_k=k) for query in queries]
            assert found[f"{way}_r{k}"] == pytest.approx(100 * np.mean(hits))
        gain = [functional.retrieval_normalized_dcg(*query, top_k=10) for query in queries]
        assert found[f"{way}_ndcg10"] == pytest.approx(100 * np.mean(gain))
        reciprocal = [functional.retrieval_reciprocal_rank(*query) for query in queries]
        assert found[f"{way}_mrr"] == pytest.approx(100 * np.mean(reciprocal))
        precision = [functional.retrieval_r_precision(*query) for query in queries]
        assert found[f"{way}_r_precision"] == pytest.approx(100 * np.mean(precision))
        # its average precision at R is divided by the right answers found, ours by R
        average = [
            functional.retrieval_average_precision(score, right, top_k=int(right.sum()))
            * functional.retrieval_recall(score, right, top_k=int(right.sum()))
            for score, right in queries
        ]
        assert found[f"{way}_map_at_r"] == pytest.approx(100 * np.mean(average))
    assert 20 < found["i2t_map_at_r"] < 90


def test_the_same_as_open_clip_on_one_caption_an_image():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train = pytest.importorskip(
            "open_clip_train.train", reason="extras `open-clip`, `examples`"
        )
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(101, 8, generator=generator), dim=1)
    texts = images + 0.3 * torch.randn(101, 8, generator=generator)
    theirs = train.get_clip_metrics(images, texts, 1.0)
    ours = protocol_metrics(images @ texts.T, torch.arange(101))
    for way, name in (("i2t", "image_to_text"), ("t2i", "text_to_image")):
        assert ours[f"{way}_meanr"] == pytest.approx(theirs[f"{name}_mean_rank"])
        assert ours[f"{way}_medr"] == theirs[f"{name}_median_rank"]
        for k in (1, 5, 10):
            assert ours[f"{way}_r{k}"] == pytest.approx(100 * theirs[f"{name}_R@{k}"])
        assert 10 < ours[f"{way}_r1"] < 90


def test_full_is_retrieval_metrics_and_precision():
    sim, owners = noise(20, 3)
    t2i, _ = noise(20, 3, seed=1)
    found = protocol_metrics(sim, owners, t2i=t2i)
    recalls = retrieval_metrics(sim, owners, t2i=t2i)
    assert {k: found[k] for k in recalls} == recalls
    assert found["t2i_map_at_r"] == found["t2i_r_precision"] == recalls["t2i_r1"]
    assert protocol_metrics(sim.numpy(), owners.tolist(), t2i=t2i.numpy()) == found


@pytest.mark.parametrize("other", [False, True])
def test_coco_1k_is_the_mean_of_five_folds(monkeypatch, other):
    """Captions in no order and of uneven numbers; each fold cut out and measured alone."""
    monkeypatch.setattr(protocols, "FOLD_IMAGES", 8)
    sim, owners = noise(40, 4)
    owners = torch.where(torch.arange(160) % 7 == 0, owners // 2, owners)
    owners[:40] = torch.arange(40)
    t2i = noise(40, 4, seed=1)[0] if other else None
    alone = []
    for first in range(0, 40, 8):
        inside = (owners >= first) & (owners < first + 8)
        cut = [m if m is None else m[first : first + 8][:, inside] for m in (sim, t2i)]
        alone.append(protocol_metrics(cut[0], owners[inside] - first, t2i=cut[1]))
    found = protocol_metrics(sim, owners, "coco_1k", t2i=t2i)
    assert found == pytest.approx({k: np.mean([one[k] for one in alone]) for k in alone[0]})
    assert found["t2i_r5"] > protocol_metrics(sim, owners, t2i=t2i)["t2i_r5"]


@pytest.mark.parametrize(
    ("owners", "protocol", "message"),
    [
        ([0, 2, 2], "full", "image 1 has no caption"),
        ([0, 1, 2], "coco_1k", "five folds of 1000 images, got 3 images"),
        ([0, 1, 2], "coco_5k", "unknown protocol 'coco_5k'; known are full, coco_1k"),
    ],
)
def test_errors_say_which(owners, protocol, message):
    with pytest.raises(ValueError, match=message):
        protocol_metrics(np.eye(3), owners, protocol)


def test_query_results_say_what_each_query_got(monkeypatch):
    monkeypatch.setattr(protocols, "FOLD_IMAGES", 1)
    found = query_results(np.eye(5)[:, [0, 0, 1, 2, 3, 4]], [0, 0, 1, 2, 3, 4], "coco_1k")
    assert found.fold.tolist() == [0, 1, 2, 3, 4]
    assert found.i2t_rank.tolist() == [1] * 5 and found.t2i_rank.tolist() == [1] * 6
    assert found.caption_to_image.tolist() == [0, 0, 1, 2, 3, 4]
