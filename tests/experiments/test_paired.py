"""Honest against paired on made features, and a small head on noise."""

from __future__ import annotations

import pytest

from ascl_plugin.experiments import paired
from ascl_plugin.experiments.paired import HONEST, PAIRED, experiment, noise_like, small_head
from ascl_plugin.fusion import CrossModalFusion, LateInteraction
from ascl_plugin.metrics.recall import retrieval_metrics

pytestmark = pytest.mark.filterwarnings('ignore:protocol "paired" leaks')
SETTINGS = {"rows": 10, "draws": 30, "steps": 2}


@pytest.fixture
def few_pairs(monkeypatch):
    monkeypatch.setattr(paired, "ITEMS", 60)
    monkeypatch.setattr(paired, "BATCH", 16)


@pytest.fixture
def study(fake_study, few_pairs):
    return fake_study(fusion=CrossModalFusion(8, num_heads=4, local_weight=0.0))


def test_the_same_weights_both_ways(study):
    found = experiment(study, SETTINGS)
    real, noise, small = found.tables
    assert [row["scored"] for row in real.rows] == [HONEST, PAIRED]
    assert "first 10 images" in real.caption and real.leaks == [1] and noise.leaks == [1]
    runs = [study.trained("full", seed) for seed in (0, 1)]
    honest = [retrieval_metrics(run.sim[:10, :30], run.caption_to_image[:30]) for run in runs]
    mean = sum(metrics["rsum"] for metrics in honest) / 2
    assert real.rows[0]["Rsum"].startswith(f"{mean:.1f} ± ")
    for rows, queries in ((noise.rows, 10 * 30 * 2), (small.rows[:2] + small.rows[4:], 60)):
        by = {row["scored"]: row for row in rows}
        low, high = paired.chance_interval(queries, 1 / (10 if queries == 600 else 60))
        for title in ("I2T R@1", "T2I R@1"):
            assert low <= by[HONEST][title] <= high < by[PAIRED][title]
            assert by["chance, 99% interval"][title].endswith(f"({low:.1f} to {high:.1f})")
    assert [row["steps"] for row in small.rows] == ["0", "0", "2", "2", ""]
    honest_note, leaking_note = found.notes  # they count recalls of noise
    assert "scored pair by pair lie within" in honest_note and "18 of 18" in honest_note
    inside = int(leaking_note.split()[2])
    assert "of 18 recalls scored paired (leaks) lie" in leaking_note and inside < 12


def test_noise_keeps_shapes_masks_and_size_alone(fake_study):
    run = fake_study().trained("full", 0)
    images, texts = run.evaluator.encode_images(run.rows), run.evaluator.encode_texts(run.texts)
    generator = paired.torch.Generator().manual_seed(1)
    v, w = noise_like(images, texts, generator)
    for drawn, real in (
        (v.regions, images.regions),
        (v.pooled, images.pooled),
        (w.words, texts.words),
    ):
        assert drawn.shape == real.shape
        assert drawn.pow(2).mean() == pytest.approx(real.pow(2).mean(), rel=0.25)
        assert abs((drawn * real).mean() / real.pow(2).mean()) < 0.25  # nothing else of it
    other, _ = noise_like(images, texts, generator)
    assert not paired.torch.equal(other.regions, v.regions)


def test_training_as_published_on_noise_alone(few_pairs, monkeypatch):
    state = paired.torch.get_rng_state()
    monkeypatch.setattr(paired.torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded"))
    found = small_head(20)
    assert paired.torch.equal(paired.torch.get_rng_state(), state)
    chance = 100 / 60
    assert found["20"][PAIRED]["i2t_r1"] > found["0"][PAIRED]["i2t_r1"] > 4 * chance
    assert max(found[steps][HONEST]["i2t_r1"] for steps in found) < 5 * chance


def test_what_does_not_fit_is_refused(fake_study, few_pairs):
    with pytest.raises(ValueError, match=r"no setting 'images'; there are models, rows"):
        experiment(fake_study(), {"images": 3})
    with pytest.raises(TypeError, match="takes a CrossModalFusion, got LateInteraction"):
        experiment(fake_study(fusion=LateInteraction()), SETTINGS)
