"""Text-to-image recall by the length of the query (ACF-R+, Figure 7; AsCL, Figure 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch

from ascl_plugin.experiments.plan import Settings
from ascl_plugin.experiments.study import Study, Trained, cells_of, models_of
from ascl_plugin.metrics.recall import text_ranks
from ascl_plugin.metrics.statistics import over_seeds
from ascl_plugin.report.document import Figure, Section
from ascl_plugin.report.plots import bars, legend, panels, save
from ascl_plugin.report.table import Cell, Table, spread_cells
from ascl_plugin.retrieval.encoders import words_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LENGTHS = (1, 10, 12, 15)  # the papers say "less than 10 words" and leave the rest to a plot


class Bucket(TypedDict):
    """Captions of similar length: such as "1-9" words, how many, and their recalls by title."""

    words: str
    captions: int
    recalls: dict[str, float]


def experiment(study: Study, settings: Settings) -> Section:
    """Return recalls of sampled captions, bucket by bucket, of every model and seed.

    Args:
        study: at least one model.
        settings: `models`, by default the first two; `captions`, how many are sampled (1,000);
            `lengths`, the fewest words of each bucket (1, 10, 12, 15).

    Raises:
        ValueError: lengths that do not rise from 1.
    """
    lengths = list(settings.get("lengths", LENGTHS))
    rising = lengths[:1] == [1] and all(low < high for low, high in pairwise(lengths))
    if not rising or not all(type(length) is int for length in lengths):
        raise ValueError(f"lengths must rise from 1, as [1, 10, 12, 15] do, got {lengths}")
    sampled = partial(measure, lengths=lengths, count=settings.get("captions", 1000))
    cells = cells_of(study, "query_length", models_of(study, settings), study.seeds, sampled)
    found = {
        model: [
            (first["words"], first["captions"], [bucket["recalls"] for bucket in (first, *others)])
            for first, *others in zip(*seeds, strict=True)
        ]
        for model, seeds in cells.items()
    }
    sizes = [size for _, size, _ in next(iter(found.values()))]
    path = study.path("query_length", "recall.svg")
    save(partial(_draw, found), path, (8, 4))
    rows: list[dict[str, Cell]] = [
        {"model": model, "words": words, "captions": size, **spread_cells(recalls)}
        for model, buckets in found.items()
        for words, size, recalls in buckets
    ]
    caption = f"Recall of {sum(sizes)} sampled captions by their length"
    notes = [
        "Captions are sampled once (seed 0), the same for all models and seeds; each searches all "
        "images of the split.",
        "A recall of p percent among n captions has a standard error of sqrt(p (100 - p) / n), up "
        f"to {50 / min(sizes) ** 0.5:.1f} points in the smallest bucket of {min(sizes)}. It comes "
        "on top of the deviation over seeds.",
    ]
    return Section(
        "Length of text queries",
        tables=[Table(f"{caption}; mean ± deviation over seeds", rows)],
        figures=[Figure(path, "Text-to-image recall by the words of the query")],
        notes=notes,
    )


def measure(trained: Trained, lengths: Sequence[int], count: int) -> list[Bucket]:
    """Return recalls of `count` sampled captions, or of all, in each bucket that has some."""
    chosen = np.random.default_rng(0).permutation(len(trained.texts))[:count]
    columns = torch.from_numpy(np.sort(chosen))
    owners = torch.as_tensor(trained.caption_to_image)[columns]
    ranks = text_ranks(trained.sim[:, columns], owners).numpy()
    words = np.array([len(words_of(trained.texts[text])) for text in columns.tolist()])
    bucket_of = np.searchsorted(lengths, words.clip(1), side="right") - 1
    found: list[Bucket] = []
    for place, name in enumerate(bucket_names(lengths)):
        own = ranks[bucket_of == place]
        if len(own):
            recalls = {f"T2I R@{k}": 100 * float((own <= k).mean()) for k in (1, 5, 10)}
            found.append({"words": name, "captions": len(own), "recalls": recalls})
    return found


def bucket_names(lengths: Sequence[int]) -> list[str]:
    """Return names such as `1-9`, `10`, `11+` for lengths (1, 10, 11)."""
    bounds = [(low, high - 1) for low, high in pairwise(lengths)]
    closed = [f"{low}-{high}" if low < high else f"{low}" for low, high in bounds]
    return [*closed, f"{lengths[-1]}+"]


def _draw(
    found: Mapping[str, Sequence[tuple[str, int, list[dict[str, float]]]]], axes: Axes
) -> None:
    names = [f"{words}\nn={size}" for words, size, _ in next(iter(found.values()))]
    for place, title in zip(panels(axes, 2), ("T2I R@1", "T2I R@5"), strict=True):
        series = {
            model: [over_seeds(recalls)[title] for _, _, recalls in buckets]
            for model, buckets in found.items()
        }
        bars(place, names, series, "")
        place.set_ylabel(f"{title}, percent")
        place.set_xlabel("words of the query")
    legend(place)
