"""The torchmetrics twin of `retrieval_metrics`; this file is also the program of its processes."""

from __future__ import annotations

import os
import sys

import pytest
import torch

pytest.importorskip("torchmetrics", reason="extra `metrics`")
from ascl_plugin.adapters.leaderboards.retrieval_metric import RetrievalMetrics, cosines
from ascl_plugin.metrics.recall import retrieval_metrics

WORLD, IMAGES = 2, 9


def drawn():
    """Features of 9 images, each with two texts; texts 2 i and 2 i + 1 are of image i."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, 4, generator=generator)
    noise = torch.randn(2 * IMAGES, 4, generator=generator)
    return images, images.repeat_interleave(2, 0) + noise


def batch(images, texts, rows):
    """What `update` takes of some images and all of their texts."""
    rows = torch.tensor(rows)
    of_texts = (2 * rows[:, None] + torch.arange(2)).flatten()
    return images[rows], texts[of_texts], rows, rows.repeat_interleave(2), of_texts


def one_process(rank, out):
    """Take in every second image, and the last share's repeated first one, as samplers pad."""
    torch.distributed.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    images, texts = drawn()
    metric = RetrievalMetrics()
    mine = [*range(rank, IMAGES, WORLD), *([0] if rank else [])]
    for rows in (mine[:2], mine[2:]):
        metric.update(*batch(images, texts, rows))
    found = metric.compute()
    unnamed = RetrievalMetrics()  # pairs, without ids
    unnamed.update(images[rank::WORLD], texts[2 * rank :: 2 * WORLD])
    torch.save({"named": found, "unnamed": unnamed.compute()}, f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


def values(metrics):
    return {name: float(value) for name, value in metrics.items()}


def test_two_processes_have_the_metrics_of_one(run_ranks, tmp_path):
    images, texts = drawn()
    owners = torch.arange(2 * IMAGES) // 2
    expected = retrieval_metrics(cosines(images, texts), owners)
    pairs = retrieval_metrics(cosines(images, texts[::2]))
    assert 100 < expected["rsum"] < 590
    for found in run_ranks(__file__, tmp_path, WORLD):
        assert values(found["named"]) == pytest.approx(expected)
        assert values(found["unnamed"]) == pytest.approx(pairs)


def test_batches_of_one_process():
    """`forward` gives the metrics of a batch and adds it; owners may be of another batch."""
    images, texts = drawn()
    metric = RetrievalMetrics()
    first = metric(*batch(images, texts, [4, 1]))
    of_batch = retrieval_metrics(cosines(images[[1, 4]], texts[[2, 3, 8, 9]]), [0, 0, 1, 1])
    assert values(first) == pytest.approx(of_batch)
    metric.update(images[[7]], texts[[14, 15, 2]], [7], [7, 7, 1], [14, 15, 2])
    three = retrieval_metrics(
        cosines(images[[1, 4, 7]], texts[[2, 3, 8, 9, 14, 15]]), [0, 0, 1, 1, 2, 2]
    )
    assert values(metric.compute()) == pytest.approx(three)
    metric.reset()
    metric.update(images[:3], texts[:6:2])
    metric.update(images[3:], texts[6::2])
    assert values(metric.compute()) == pytest.approx(retrieval_metrics(cosines(images, texts[::2])))


def test_wrong_ids():
    images, texts = drawn()
    metric = RetrievalMetrics()
    with pytest.raises(ValueError, match="9 images and 18 texts: pass owners"):
        metric.update(images, texts)
    with pytest.raises(ValueError, match=r"image_ids must be 9 numbers from 0, got \(2,\) from -1"):
        metric.update(images, texts[:9], [3, -1])
    metric.update(images[:2], texts[:2], [5, 6], [5, 9])
    with pytest.raises(ValueError, match="a text belongs to image 9, which never came"):
        metric.compute()


if __name__ == "__main__":
    one_process(int(os.environ["RANK"]), sys.argv[1])
