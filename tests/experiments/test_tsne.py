"""The experiment of Figures 5 and 6, on made features."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ascl_plugin.experiments.tsne import experiment, plane, sample

pytest.importorskip("matplotlib", reason='needs the extra "report"')
pytest.importorskip("sklearn", reason='needs the extra "report"')


def test_pairs_come_with_all_captions_the_others_with_one():
    owners = np.array([2, 0, 1, 2, 0, 1, 3, 3, 2, 4])  # in any order
    rows, texts = sample(owners, 5, pairs=2, items=4, seed=0)
    assert len(set(rows)) == 4
    for place, row in enumerate(rows):
        own = [t for t in texts if owners[t] == row]
        assert len(set(own)) == len(own) == ((owners == row).sum() if place < 2 else 1)
    again, other = sample(owners, 5, 2, 4, 0), sample(owners, 5, 2, 4, 1)
    assert np.array_equal(again[0], rows) and np.array_equal(again[1], texts)
    assert not np.array_equal(other[0], rows)
    assert len(sample(owners, 5, 2, 500, 0)[0]) == 5


def test_groups_stay_together_in_the_plane():
    centres = np.repeat(np.eye(3), 12, axis=0) * 5
    vectors = (centres + np.random.default_rng(0).normal(size=(36, 3)) / 10).astype("float32")
    places, divergence = plane(vectors, perplexity=5, seed=0)
    assert places.shape == (36, 2) and divergence > 0
    distances = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(36)
    # few points may stray: rounding decides which local optimum the descent ends in
    assert (distances.argmin(1) // 12 == np.arange(36) // 12).mean() > 0.9
    assert np.array_equal(plane(vectors, 5, 0)[0], places)


def test_one_run_of_each_model_is_drawn_twice(fake_study):
    study = fake_study()
    result = experiment(study, {"pairs": 2, "items": 10, "perplexity": 4})
    assert list(study.made) == [("tsne", "full-0"), ("tsne", "none-0")]
    cell = study.cell("tsne", "full-0", None)
    assert len(cell["images"]) == 10 and len(cell["texts"]) == 14
    assert np.bincount(cell["owners"]).tolist() == [3, 3] + [1] * 8
    drawn = sorted(path.name for path in (study.folder / "tsne").iterdir())
    assert drawn == ["pairs.dark.svg", "pairs.svg", "spread.dark.png", "spread.png"]
    assert [figure.path.name for figure in result.figures] == ["pairs.svg", "spread.png"]
    assert [row["texts"] for row in result.tables[0].rows] == [14, 14]


def test_settings_that_cannot_be_are_named(fake_study):
    with pytest.raises(ValueError, match="pairs must be 1 to 6"):
        experiment(fake_study(), {"pairs": 7})
    with pytest.raises(ValueError, match="at most the 3 items, got 4"):
        experiment(fake_study(), {"pairs": 4, "items": 3})
    with pytest.raises(ValueError, match="of 24 vectors needs a perplexity below that, got 30"):
        plane(np.zeros((24, 2)), 30, 0)


def test_without_sklearn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ImportError, match=r"ascl-plugin\[report\]"):
        plane(np.zeros((24, 2)), 3, 0)
