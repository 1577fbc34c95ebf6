"""Intervals and tests of significance against scipy, enumeration, and data without a difference."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from ascl_plugin.metrics import statistics
from ascl_plugin.metrics.protocols import QueryResults
from ascl_plugin.metrics.statistics import (
    chance_interval,
    confidence_intervals,
    over_seeds,
    paired_test,
)
from ascl_plugin.report.table import interval_cells, spread_cells


def run(images=60, captions=3, seed=0, folds=1, uneven=False):
    """Ranks drawn at random; captions in no order."""
    rng = np.random.default_rng(seed)
    owners = np.random.default_rng(9).permutation(np.repeat(np.arange(images), captions))
    if uneven:
        owners = np.concatenate([owners, np.zeros(50, int), np.ones(20, int)])
    average = rng.random(images)
    return QueryResults(
        rng.integers(1, 15, images), rng.integers(1, 15, len(owners)), average, average**2,
        average**3, owners, np.arange(images) * folds // images,
    )  # fmt: skip


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("folds", [1, 5])
def test_resamples_are_the_metrics_of_images_drawn(monkeypatch, folds, uneven):
    """The vectorised resample is the metric of a run made of the images drawn, each fold alone."""
    queries = run(folds=folds, uneven=uneven)
    drawn = []

    def once(rng, resamples, images):
        drawn.append(rng.integers(0, images, images))
        return np.bincount(drawn[-1], minlength=images)[None].astype(float)

    monkeypatch.setattr(statistics, "_times_drawn", once)
    found = confidence_intervals(queries, resamples=1)
    size = 60 // folds
    chosen = np.concatenate([f * size + d for f, d in enumerate(drawn)])
    of_image = [np.flatnonzero(queries.caption_to_image == i) for i in range(60)]
    made = QueryResults(
        queries.i2t_rank[chosen],
        np.concatenate([queries.t2i_rank[of_image[i]] for i in chosen]),
        queries.map_at_r[chosen],
        queries.r_precision[chosen],
        queries.ndcg10[chosen],
        np.repeat(np.arange(60), [len(of_image[i]) for i in chosen]),
        queries.fold,
    )
    expected = made.metrics()
    assert {name: low for name, (low, _) in found.items()} == pytest.approx(
        {name: expected[name] for name in found}
    )
    assert expected.keys() - found.keys() == {"medr", "i2t_medr", "t2i_medr"}


def test_times_drawn_are_draws_with_replacement():
    times = statistics._times_drawn(np.random.default_rng(0), 4000, 7)
    assert (times.sum(axis=1) == 7).all()
    assert times.mean(axis=0) == pytest.approx(np.ones(7), abs=0.06)
    assert times.var(axis=0) == pytest.approx(np.full(7, 6 / 7), abs=0.08)  # of a multinomial


def test_the_interval_is_scipys():
    bootstrap = pytest.importorskip("scipy.stats", reason="scipy, with extra `examples`").bootstrap
    queries = run(images=200)
    found = confidence_intervals(queries, level=0.9)
    hits = 100.0 * (queries.i2t_rank <= 5)
    theirs = bootstrap(
        (hits,), np.mean, confidence_level=0.9, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found["i2t_r5"] == pytest.approx(tuple(theirs), abs=0.6)
    narrow, wide = found["i2t_r5"]
    assert narrow < hits.mean() < wide


def test_the_seed_decides():
    first = confidence_intervals(run(), seed=3, resamples=300)
    assert first == confidence_intervals(run(), seed=3, resamples=300)
    assert first != confidence_intervals(run(), seed=4, resamples=300)


@pytest.mark.parametrize(("folds", "uneven"), [(1, False), (1, True), (3, True)])
def test_p_values_are_those_of_all_swaps(folds, uneven):
    """Nine images: all 512 swaps of the two runs, each run's metrics made anew."""
    first, second = run(9, 2, 0, folds, uneven), run(9, 2, 1, folds, uneven)
    a, b = first.metrics(), second.metrics()
    by_swap = []
    for swap in itertools.product([False, True], repeat=9):
        image = np.array(swap)
        text = image[first.caption_to_image]
        mixed = []
        for one, other in ((first, second), (second, first)):
            mixed.append(
                QueryResults(
                    np.where(image, other.i2t_rank, one.i2t_rank),
                    np.where(text, other.t2i_rank, one.t2i_rank),
                    np.where(image, other.map_at_r, one.map_at_r),
                    np.where(image, other.r_precision, one.r_precision),
                    np.where(image, other.ndcg10, one.ndcg10),
                    first.caption_to_image,
                    first.fold,
                ).metrics()
            )
        by_swap.append({name: mixed[1][name] - mixed[0][name] for name in a})
    found = paired_test(first, second, resamples=20_000)
    for name, (value, low, high, p_value) in found.items():
        assert value == pytest.approx(b[name] - a[name])
        assert low <= value <= high
        exact = np.mean([abs(one[name]) >= abs(value) - 1e-9 for one in by_swap])
        assert p_value == pytest.approx(exact, abs=0.015), name


def test_a_run_against_itself_and_against_a_better_one():
    same = paired_test(run(), run(), resamples=200)["rsum"]
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    better = replace(run(), i2t_rank=np.ones(60, int))
    found = paired_test(run(), better, resamples=999)
    assert found["i2t_r1"].p_value == 1 / 1000 and found["i2t_r1"].low > 0
    assert found["t2i_r1"].p_value == 1


def test_means_of_seeds_are_compared():
    """One image more of four found at rank 1, by one seed of two: 25 / 2 points."""
    owners, zeros = np.arange(4), np.zeros(4)

    def seed(i2t):
        return QueryResults(
            np.array(i2t), np.full(4, 99), zeros, zeros, zeros, owners, zeros.astype(int)
        )

    first = [seed([1, 1, 20, 20]), seed([1, 20, 20, 20])]
    second = [seed([1, 1, 1, 20]), seed([1, 20, 20, 20])]
    found = paired_test(first, second, resamples=500)["i2t_r1"]
    assert found.value == pytest.approx(12.5)
    assert (found.low, found.high) == (0, pytest.approx(37.5))  # drawn 0 to 3 times of 4
    assert paired_test(first, first, resamples=50)["rsum"].value == 0
    with pytest.raises(ValueError, match="not of the same data"):
        paired_test([run(), run()], [run(), run(captions=4)])


def test_runs_of_other_data_cannot_be_paired():
    with pytest.raises(ValueError, match="not of the same data and protocol"):
        paired_test(run(), run(captions=4))
    with pytest.raises(ValueError, match="not of the same data and protocol"):
        paired_test(run(), run(folds=5))


def test_options_out_of_range():
    with pytest.raises(ValueError, match=r"level must be between 0 and 1, .* got 95"):
        confidence_intervals(run(), level=95)
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        paired_test(run(), run(), resamples=0)


def test_over_seeds_worked_by_hand():
    """1, 2, 6: mean 3, deviation sqrt((4 + 1 + 9) / 2) = sqrt(7)."""
    runs = [{"rsum": 1.0}, {"rsum": 2.0}, {"rsum": 6.0}]
    assert over_seeds(runs)["rsum"] == pytest.approx((3, 7**0.5))
    assert spread_cells(runs) == {"rsum": "3.0 ± 2.6"}
    assert spread_cells(runs[:1]) == {"rsum": "1.0"}
    with pytest.raises(ValueError, match="no runs"):
        over_seeds([])
    with pytest.raises(ValueError, match="run 1 and run 0 do not both have medr"):
        over_seeds([{"rsum": 1.0}, {"rsum": 2.0, "medr": 1.0}])


def test_intervals_as_cells():
    assert interval_cells({"rsum": (1.04, 2.25)}) == {"rsum": "1.0 to 2.2"}


@pytest.mark.parametrize(
    ("queries", "chance", "level"),
    [(1, 0.5, 0.9), (12, 0.3, 0.9), (200, 1 / 200, 0.99), (1000, 0.02, 0.99), (500, 0.97, 0.95)],
)
def test_chance_leaves_out_no_more_than_it_says_and_is_narrow(queries, chance, level):
    """Sums of the binomial distribution, term by term in whole numbers and powers."""
    share = [
        math.comb(queries, k) * chance**k * (1 - chance) ** (queries - k)
        for k in range(queries + 1)
    ]
    low, high = (round(queries * bound / 100) for bound in chance_interval(queries, chance, level))
    tail = (1 - level) / 2
    assert sum(share[:low]) <= tail and sum(share[high + 1 :]) <= tail
    assert sum(share[: low + 1]) > tail and sum(share[high:]) > tail


def test_chance_worked_by_hand():
    """Three tosses: none, or all, with 1/8. Ten of a die: above 4 with 1.5 %, above 5 with .2 %."""
    assert chance_interval(3, 0.5, level=0.7) == pytest.approx((100 / 3, 200 / 3))
    assert chance_interval(3, 0.5) == (0, 100)
    assert chance_interval(10, 1 / 6, level=0.98) == pytest.approx((0, 50))
    low, high = chance_interval(10**6, 0.001)
    assert 0.09 < low < 0.1 < high < 0.11
    assert chance_interval(10, 0) == (0, 0) and chance_interval(10, 1) == (100, 100)
    for wrong in ((0, 0.5), (10, -0.1), (10, 1.1), (10, 0.5, 99)):
        with pytest.raises(ValueError, match="must be between 0 and 1, queries at least 1; got"):
            chance_interval(*wrong)
