"""CxC and ECCV-Caption: rankings, and our recalls held against the package's on a 5K matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ascl_plugin.metrics import eccv, protocols
from ascl_plugin.metrics.eccv import eccv_metrics, eccv_rankings
from ascl_plugin.metrics.protocols import query_results


def test_rankings_hold_the_best_of_all_then_of_the_fold(monkeypatch):
    """Ten images in five folds of two, captions in no order, against a full sort."""
    monkeypatch.setattr(protocols, "FOLD_IMAGES", 2)
    monkeypatch.setattr(eccv, "_DEEPEST_RECALL", 3)
    rng = np.random.default_rng(0)
    owners = rng.permutation(np.repeat(np.arange(10), 4))
    sim, other = rng.normal(size=(10, 40)), rng.normal(size=(10, 40))
    image_ids, caption_ids = [f"{100 + i}" for i in range(10)], [1000 + 7 * t for t in range(40)]
    i2t, t2i = eccv_rankings(sim, image_ids, caption_ids, owners, t2i=other, depth=5)
    for i in range(10):
        order = np.argsort(-sim[i])
        mine = [t for t in order if owners[t] // 2 == i // 2][:3]
        expected = [*order[:5], *(t for t in mine if t not in order[:5])]
        assert i2t[100 + i] == [1000 + 7 * t for t in expected]
    for t in range(40):
        order = np.argsort(-other[:, t])
        mine = [i for i in order if i // 2 == owners[t] // 2][:3]
        expected = [*order[:5], *(i for i in mine if i not in order[:5])]
        assert t2i[1000 + 7 * t] == [100 + i for i in expected]


def test_of_equal_scores_the_lower_index_comes_first():
    i2t, t2i = eccv_rankings(torch.zeros(2, 3), [5, 6], [7, 8, 9], [0, 1, 1])
    assert i2t == {5: [7, 8, 9], 6: [7, 8, 9]}
    assert t2i == {7: [5, 6], 8: [5, 6], 9: [5, 6]}


@pytest.mark.parametrize(
    ("image_ids", "caption_ids", "message"),
    [
        ([1], [1, 2], "image_ids has 1 entries, sim wants 2"),
        ([1, 1], [1, 2], "image_ids: 1 occurs twice, at 0 and 1"),
        ([1, 2], ["3", "3#1"], "caption_ids: entry 1 is '3#1', expected an integer"),
    ],
)
def test_ids_must_be_ids(image_ids, caption_ids, message):
    with pytest.raises(ValueError, match=message):
        eccv_rankings(np.eye(2), image_ids, caption_ids, [0, 1])


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "eccv_caption", None)
    with pytest.raises(ImportError, match=r'pip install "ascl-plugin\[eccv\]"'):
        eccv_metrics(np.eye(2), [1, 2], [1, 2])


def test_another_data_set_is_refused():
    pytest.importorskip("eccv_caption", reason="extra `eccv`")
    with pytest.raises(
        ValueError, match="5000 of the 5000 images of the COCO 5K test split are not"
    ):
        eccv_metrics(np.eye(2), [1, 2], [1, 2])


def test_the_same_recalls_and_precisions_as_the_package():
    """COCO's own right answers, counted by us and by it; to it rows and columns go in no order,
    with an image and a caption that are not of the split.

    Where a wrong item scores exactly as the right one, which is once or twice in this matrix, we
    count it before and the package whichever it is given first: one image, or five captions.
    """
    pytest.importorskip("eccv_caption", reason="extra `eccv`")
    package = eccv._package().Metrics()
    captions = [int(c) for c in package.coco_ids]
    image_of = {c: images[0] for c, images in package.coco_gts["t2i"].items()}
    images = list(dict.fromkeys(image_of[c] for c in captions))
    row = {image: i for i, image in enumerate(images)}
    owners = torch.tensor([row[image_of[c]] for c in captions])
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5001, 16, generator=generator)
    texts = torch.randn(25_001, 16, generator=generator)
    texts[:-1] += features[owners]
    sim = features @ texts.T
    rows, columns = torch.randperm(5001, generator=generator), torch.arange(25_001).flip(0)
    image_ids = np.array([*images, -1])[rows].tolist()
    caption_ids = [str(c) for c in [-1, *captions[::-1]]]
    theirs = eccv_metrics(sim[rows][:, columns], image_ids, caption_ids)

    sim = sim[:-1, :-1]
    full = query_results(sim, owners).metrics()
    folds = query_results(sim, owners, "coco_1k").metrics()
    for way in ("i2t", "t2i"):
        for k in (1, 5, 10):
            assert theirs[f"coco_5k_{way}_r{k}"] == pytest.approx(full[f"{way}_r{k}"], abs=0.02)
            assert theirs[f"coco_1k_{way}_r{k}"] == pytest.approx(folds[f"{way}_r{k}"], abs=0.02)
            assert theirs[f"cxc_{way}_r{k}"] == pytest.approx(full[f"{way}_r{k}"], abs=1)
        for metric in ("r1", "map_at_r", "rprecision"):
            assert 0 < theirs[f"eccv_{way}_{metric}"] < 100
    assert 5 < full["t2i_r1"] < 50 < folds["i2t_r10"]

    from eccv_caption._metrics import compute_eccv_metrics

    i2t, _ = eccv_rankings(sim, images, captions, owners, depth=5)
    precision = compute_eccv_metrics(i2t, package.coco_gts["i2t"])
    assert 100 * precision["eccv_map_at_r"] == pytest.approx(full["i2t_map_at_r"], abs=0.02)
    assert 100 * precision["eccv_rprecision"] == pytest.approx(full["i2t_r_precision"], abs=0.02)
