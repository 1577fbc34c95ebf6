"""Statistics of metrics: bootstrap intervals, paired test, spread over seeds, chance.

The unit is the image with its captions: captions of one image are not independent queries, and
resampling them one by one would make intervals too narrow. Queries are resampled with their ranks;
the gallery stays. Intervals and tests show how a result varies with the queries, not with the
training run: use several seeds for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ascl_plugin.metrics.protocols import QueryResults

_CHUNK = 256  # resamples held at once


class Difference(NamedTuple):
    """Second run minus first: the difference, its bootstrap interval, and the p-value."""

    value: float
    low: float
    high: float
    p_value: float


class Spread(NamedTuple):
    """Mean over seeds and sample deviation (divided by n - 1); None for a single seed."""

    mean: float
    deviation: float | None


def confidence_intervals(
    queries: QueryResults, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return percentile bootstrap intervals of the metrics of one run.

    Images are drawn with replacement, within their fold, together with their captions.

    Args:
        queries: of `query_results`.
        level: 0 to 1, share of the resamples that an interval covers.
        resamples: number of resamples.
        seed: of the random draws.

    Returns:
        Metric -> (low, high), in its unit: all of `protocol_metrics` but the median ranks, whose
        bootstrap takes few integer values.

    Raises:
        ValueError: level not between 0 and 1, no resamples.
    """
    _check(level, resamples)
    values = _named(_resampled(queries, _contributions(queries), resamples, seed))
    return {name: _interval(value, level) for name, value in values.items()}


def paired_test(
    first: QueryResults | Sequence[QueryResults],
    second: QueryResults | Sequence[QueryResults],
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Test if two runs differ on the same queries.

    Under the null hypothesis the two runs are exchangeable on every image. The test swaps them at
    random, on each image and its captions together, and counts how often the difference is as large
    as the one found (approximate randomisation, two-sided): p = (1 + count) / (1 + resamples), so
    never 0. The interval is that of the paired bootstrap.

    Args:
        first, second: of `query_results`, of the same data under the same protocol; of several
            seeds each, it is their means that are compared, and chance is that of the images.
        level, resamples, seed: as in `confidence_intervals`.

    Returns:
        Metric -> `Difference`, second minus first, for the metrics of `confidence_intervals`. Many
        metrics are many tests: choose one beforehand.

    Raises:
        ValueError: runs on different data or protocols; as `confidence_intervals`.
    """
    _check(level, resamples)
    runs = [[x] if isinstance(x, QueryResults) else list(x) for x in (first, second)]
    one = runs[0][0]
    if not all(
        np.array_equal(one.caption_to_image, other.caption_to_image)
        and np.array_equal(one.fold, other.fold)
        for other in (*runs[0], *runs[1])
    ):
        raise ValueError(
            "the runs are not of the same data and protocol: caption_to_image or folds differ"
        )
    before, after = (np.mean([_contributions(run) for run in each], axis=0) for each in runs)
    change = after - before
    shares = change / _fold_sizes(one)[one.fold] / (one.fold.max() + 1)
    rng = np.random.default_rng(seed)
    swapped = [
        (2.0 * rng.integers(0, 2, (count, len(shares))) - 1) @ shares
        for count in _chunks(resamples)
    ]
    by_chance = _named(np.concatenate(swapped))
    drawn = _named(_resampled(one, change, resamples, seed))
    result = {}
    for name, (value,) in _named(shares.sum(axis=0, keepdims=True)).items():
        bar = abs(value) - 1e-9  # the same terms, summed in another order
        p_value = (1 + int((np.abs(by_chance[name]) >= bar).sum())) / (1 + resamples)
        result[name] = Difference(float(value), *_interval(drawn[name], level), p_value)
    return result


def over_seeds(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Return mean and deviation of each metric over runs with different seeds.

    Raises:
        ValueError: no runs, or runs with different metrics.
    """
    if not runs:
        raise ValueError("over_seeds: no runs")
    for number, run in enumerate(runs):
        if run.keys() != runs[0].keys():
            other = sorted(run.keys() ^ runs[0].keys())
            raise ValueError(f"run {number} and run 0 do not both have {', '.join(other)}")
    return {
        name: Spread(
            float(np.mean([run[name] for run in runs])),
            float(np.std([run[name] for run in runs], ddof=1)) if len(runs) > 1 else None,
        )
        for name in runs[0]
    }


def chance_interval(queries: int, chance: float, level: float = 0.99) -> tuple[float, float]:
    """Return the interval of recall by guessing: exact quantiles of the binomial distribution.

    Args:
        queries: number of queries.
        chance: 0 to 1, the probability of a right guess; k / n for R@k with one right answer of n.
        level: 0 to 1; at most (1 - level) / 2 of the probability lies on either side.

    Returns:
        (low, high) in percent.

    Raises:
        ValueError: level or chance not between 0 and 1, no queries.

    Examples:
        >>> from ascl_plugin.metrics.statistics import chance_interval
        >>> chance_interval(1000, 1 / 200)
        (0.0, 1.2)
    """
    if not 0 < level < 1 or not 0 <= chance <= 1 or queries < 1:
        raise ValueError(
            "level and chance must be between 0 and 1, queries at least 1; got "
            f"{level}, {chance}, {queries}"
        )
    if chance in (0, 1):
        return 100.0 * chance, 100.0 * chance
    hits = np.arange(queries + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, queries + 1)))])  # log n!
    log_share = ways[-1] - ways - ways[::-1] + hits * np.log(chance)
    below = np.cumsum(np.exp(log_share + (queries - hits) * np.log1p(-chance)))
    low, high = np.searchsorted(below, [(1 - level) / 2, (1 + level) / 2])
    return 100 * float(low) / queries, 100 * float(min(high, queries)) / queries


# Metrics of image queries, then of caption queries, summed over an image and its captions.
_I2T = (
    "i2t_r1", "i2t_r5", "i2t_r10", "i2t_map_at_r", "i2t_r_precision", "i2t_meanr", "i2t_ndcg10",
    "i2t_mrr",
)  # fmt: skip
_T2I = ("t2i_r1", "t2i_r5", "t2i_r10", "t2i_meanr", "t2i_ndcg10", "t2i_mrr")


def _contributions(queries: QueryResults) -> np.ndarray:
    """Return what each image adds to the sums, (I, M) float64, in the units of the metrics."""
    i2t, t2i, owners = queries.i2t_rank, queries.t2i_rank, queries.caption_to_image
    images = len(i2t)
    columns = [100.0 * (i2t <= k) for k in (1, 5, 10)]
    columns += [100 * queries.map_at_r, 100 * queries.r_precision, i2t.astype(float)]
    columns += [100 * queries.ndcg10, 100 / i2t]
    columns += [100.0 * np.bincount(owners, t2i <= k, images) for k in (1, 5, 10)]
    of_texts = (t2i, 100 * queries.t2i_ndcg10, 100 / t2i)
    return np.stack([*columns, *(np.bincount(owners, x, images) for x in of_texts)], axis=1)


def _sizes(queries: QueryResults) -> np.ndarray:
    """Return the number of queries behind each contribution, (I, M)."""
    captions = np.bincount(queries.caption_to_image)
    both = np.stack([np.ones_like(captions), captions], axis=1).astype(float)
    return both.repeat((len(_I2T), len(_T2I)), axis=1)


def _fold_sizes(queries: QueryResults) -> np.ndarray:
    """Return the number of queries in each fold, (folds, M)."""
    sizes = _sizes(queries)
    return np.stack([sizes[queries.fold == f].sum(axis=0) for f in np.unique(queries.fold)])


def _resampled(queries: QueryResults, values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return (resamples, M): means of values (I, M) over each fold, then over the folds."""
    rng = np.random.default_rng(seed)
    sizes = _sizes(queries)
    inside = [np.flatnonzero(queries.fold == f) for f in np.unique(queries.fold)]
    found = []
    for count in _chunks(resamples):
        means = []
        for images in inside:
            times = _times_drawn(rng, count, len(images))
            means.append((times @ values[images]) / (times @ sizes[images]))
        found.append(np.mean(means, axis=0))
    return np.concatenate(found)


def _times_drawn(rng: np.random.Generator, resamples: int, images: int) -> np.ndarray:
    """Return (resamples, images) float64: how often each of n images is drawn in n draws."""
    drawn = rng.integers(0, images, (resamples, images))
    drawn += images * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * images)
    return counts.reshape(resamples, images).astype(float)


def _named(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns (B, M) by name, and the metrics that are sums of them."""
    found = dict(zip((*_I2T, *_T2I), values.T, strict=True))
    recalls = [found[f"{way}_r{k}"] for way in ("i2t", "t2i") for k in (1, 5, 10)]
    return found | {
        "t2i_map_at_r": found["t2i_r1"],
        "t2i_r_precision": found["t2i_r1"],
        "meanr": (found["i2t_meanr"] + found["t2i_meanr"]) / 2,
        "rsum": np.sum(recalls, axis=0),
    }


def _interval(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _chunks(total: int) -> Iterator[int]:
    for start in range(0, total, _CHUNK):
        yield min(_CHUNK, total - start)


def _check(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, for example 0.95, got {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
