"""The experiment of Figure 4, on made features."""

from __future__ import annotations

import math

import pytest
import torch

from ascl_plugin.experiments.geometry import experiment, measure
from ascl_plugin.features import mean_of_places
from ascl_plugin.fusion import PooledSimilarity

pytest.importorskip("matplotlib", reason='needs the extra "report"')


def test_distances_are_those_of_pooled_features(fake_study):
    trained = fake_study().trained("full", 0)
    found = measure(trained)
    images = trained.evaluator.encode_images(trained.rows)
    texts = trained.evaluator.encode_texts(trained.texts)
    v = torch.nn.functional.normalize(images.regions.mean(1), dim=1).tolist()
    w = torch.nn.functional.normalize(mean_of_places(texts.words, None), dim=1).tolist()
    own = [math.dist(v[t // 3], w[t]) for t in range(36)]
    assert found["image_text"]["mean"] == pytest.approx(sum(own) / 36, abs=1e-6)
    apart = [math.dist(w[s], w[t]) for s in range(36) for t in range(s) if s // 3 != t // 3]
    assert found["texts"]["pairs"] == len(apart) == 36 * 33 / 2
    assert found["texts"]["mean"] == pytest.approx(sum(apart) / len(apart), abs=1e-6)
    assert found["text_text"]["pairs"] == 36 and found["images"]["pairs"] == 66
    assert found["own_image_text"]["pairs"] == 36


def test_every_model_and_seed_is_in_the_tables(fake_study):
    study = fake_study()
    result = experiment(study, {})
    assert [key for _, key in study.made] == ["full-0", "full-1", "none-0", "none-1"]
    distances, wang_isola, by_seed = (table.rows for table in result.tables)
    assert [row["model"] for row in distances] == ["full", "none"]
    means = [measure(study.trained("none", seed))["images"]["mean"] for seed in (0, 1)]
    deviation = abs(means[0] - means[1]) / math.sqrt(2)
    assert distances[1]["different images"] == f"{sum(means) / 2:.3f} ± {deviation:.3f}"
    assert list(wang_isola[0])[1:] == [
        "alignment image-text", "alignment text-text", "uniformity images", "uniformity texts",
    ]  # fmt: skip
    assert [(row["model"], row["seed"]) for row in by_seed] == [
        ("full", "0"), ("full", "1"), ("none", "0"), ("none", "1"),
    ]  # fmt: skip
    for figure in result.figures:
        text = figure.path.read_text()
        assert figure.dark.exists()
        assert ">full<" in text and ">none<" in text and "third" not in text


def test_what_a_model_or_split_has_not_is_left_out(fake_study):
    study = fake_study(seeds=[0], per_image=1, fusion=PooledSimilarity())
    result = experiment(study, {"models": ["third"]})
    assert "positive text-text" not in result.tables[0].rows[0]
    assert "positive image-text, attended" not in result.tables[0].rows[0]
    assert [row["model"] for row in result.tables[0].rows] == ["third"]
    assert "text-text" not in (study.folder / "geometry" / "positives.svg").read_text()
