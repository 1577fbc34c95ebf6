"""Text-to-image recall by the length of the query (ACF-R+, Figure 7; AsCL, Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ascl_plugin.experiments.results import Figure, Result, Table
from ascl_plugin.experiments.study import cells_of
from ascl_plugin.metrics.recall import text_ranks
from ascl_plugin.metrics.statistics import Spread, over_seeds
from ascl_plugin.report.plots import bars, legend, panels, save
from ascl_plugin.report.tables import spread_cells
from ascl_plugin.retrieval.encoders import words_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ascl_plugin.experiments.study import Study, Trained

Cell = list[dict[str, Any]]
"""Buckets that hold captions, shortest first: `words`, `captions`, `r1`, `r5`, `r10`."""

RECALLS = {"r1": "T2I R@1", "r5": "T2I R@5", "r10": "T2I R@10"}
LENGTHS = (1, 10, 12, 15)  # the papers tell of "less than 10 words" and leave the rest to a plot


def experiment(study: Study, settings: dict[str, Any]) -> Result:
    """Recall of sampled captions, bucket by bucket, of every model and seed.

    Args:
        study: of at least one model.
        settings: `models`, by default the first two; `captions`, how many are sampled (1,000);
            `lengths`, the fewest words of each bucket (1, 10, 12, 15); `sample_seed` (0).

    Raises:
        ValueError: lengths that do not rise from 1.
    """
    lengths = check_lengths(settings.get("lengths", LENGTHS))
    count, sample_seed = settings.get("captions", 1000), settings.get("sample_seed", 0)
    sampled = partial(measure, lengths=lengths, count=count, sample_seed=sample_seed)
    found: dict[str, list[Cell]] = cells_of(study, "query_length", settings, study.seeds, sampled)
    buckets = next(iter(found.values()))[0]
    save(partial(_draw, found), study.path("query_length", "recall.svg"), (8, 4))
    captions = sum(bucket["captions"] for bucket in buckets)
    smallest = min(bucket["captions"] for bucket in buckets)
    caption = f"Recall of {captions} sampled captions by their length; mean ± deviation over seeds"
    notes = [
        f"Captions are sampled once (seed {sample_seed}), the same for all models and seeds; "
        "each searches all images of the split.",
        "A recall of p percent among n captions has a standard error of sqrt(p (100 - p) / n), up "
        f"to {50 / smallest**0.5:.1f} points in the smallest bucket of {smallest}. It comes on top "
        "of the deviation over seeds.",
    ]
    return Result(
        "Length of text queries",
        [Table(caption, _rows(found))],
        [Figure("recall.svg", "Text-to-image recall by the words of the query")],
        notes,
    )


def measure(trained: Trained, lengths: Sequence[int], count: int, sample_seed: int) -> Cell:
    """Recall of `count` sampled captions, all if there are no more, in each bucket."""
    texts = len(trained.texts)
    chosen = np.random.default_rng(sample_seed).permutation(texts)[:count]
    columns = torch.from_numpy(np.sort(chosen))
    owners = torch.as_tensor(trained.caption_to_image)[columns]
    ranks = text_ranks(trained.sim[:, columns], owners).numpy()
    words = np.array([len(words_of(trained.texts[text])) for text in columns.tolist()])
    bucket_of = np.searchsorted(lengths, words.clip(1), side="right") - 1
    cell = []
    for place, name in enumerate(bucket_names(lengths)):
        own = ranks[bucket_of == place]
        if len(own):
            recalls = {f"r{k}": 100 * float((own <= k).mean()) for k in (1, 5, 10)}
            cell.append({"words": name, "captions": len(own), **recalls})
    return cell


def bucket_names(lengths: Sequence[int]) -> list[str]:
    """Such as `1-9`, `10`, `11+` of lengths (1, 10, 11)."""
    bounds = [(low, high - 1) for low, high in pairwise(lengths)]
    closed = [f"{low}-{high}" if low < high else f"{low}" for low, high in bounds]
    return [*closed, f"{lengths[-1]}+"]


def check_lengths(lengths: Sequence[int]) -> list[int]:
    """The fewest words of each bucket.

    Raises:
        ValueError: no whole numbers that rise from 1.
    """
    found = list(lengths)
    if found[:1] != [1] or sorted(set(found)) != found or not all(type(n) is int for n in found):
        raise ValueError(f"lengths must rise from 1, as [1, 10, 12, 15] do, got {found}")
    return found


def _over_seeds(cells: Sequence[Cell]) -> list[tuple[dict[str, Any], dict[str, Spread]]]:
    """Of each bucket its name and size, and its recalls."""
    return [
        (same[0], over_seeds([{key: bucket[key] for key in RECALLS} for bucket in same]))
        for same in zip(*cells, strict=True)
    ]


def _rows(found: dict[str, list[Cell]]) -> list[dict[str, Any]]:
    rows = []
    for model, cells in found.items():
        for bucket, spreads in _over_seeds(cells):
            row = {"model": model, "words": bucket["words"], "captions": bucket["captions"]}
            recalls = spread_cells(spreads)
            rows.append(row | {name: recalls[key] for key, name in RECALLS.items()})
    return rows


def _draw(found: dict[str, list[Cell]], axes: Axes) -> None:
    first = next(iter(found.values()))[0]
    names = [f"{bucket['words']}\nn={bucket['captions']}" for bucket in first]
    for place, key in zip(panels(axes, 2), ("r1", "r5"), strict=True):
        series = {
            model: [spreads[key] for _, spreads in _over_seeds(cells)]
            for model, cells in found.items()
        }
        bars(place, names, series, "")
        place.set_ylabel(f"{RECALLS[key]}, percent")
        place.set_xlabel("words of the query")
    legend(place)
