"""Honest against paired scores: on real features and on pure noise, with the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypedDict

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ascl_plugin.experiments.plan import Settings, with_defaults
from ascl_plugin.experiments.study import Study, Trained, cells_of
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion
from ascl_plugin.interfaces import Scorer
from ascl_plugin.losses import AsymmetryLoss
from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.metrics.statistics import chance_interval, over_seeds
from ascl_plugin.report.document import Section
from ascl_plugin.report.table import RESULT_COLUMNS, Cell, Table, spread_cells
from ascl_plugin.scoring.matrix import score_matrix
from ascl_plugin.scoring.paired_protocol import ROW as PAIRED
from ascl_plugin.scoring.paired_protocol import PairedProtocol, paired_matrix

HONEST = "pair by pair"
WAYS = (HONEST, PAIRED)
RECALLS = {name: title for name, title in RESULT_COLUMNS.items() if name != "rsum"}
#: rows: the first ones of the split. draws: of noise. steps: of the small head.
DEFAULTS: Settings = {"models": None, "rows": 200, "draws": 20, "steps": 50}

#: One of `WAYS` -> metrics in percent.
Metrics = dict[str, dict[str, float]]


class Measured(TypedDict):
    """Metrics of the first images of a split, and means over draws of noise."""

    images: int
    real: Metrics
    noise: Metrics


def experiment(study: Study, settings: Settings) -> Section:
    """Score models both ways, and a small head that is trained on noise as published.

    Args:
        study: models whose fusion is a `CrossModalFusion`.
        settings: `models` (default: the first), `rows`, `draws` and `steps`, see `DEFAULTS`.

    Raises:
        ValueError: an unknown setting.
        TypeError: a model without `CrossModalFusion`.
    """
    chosen = with_defaults("paired", settings, DEFAULTS)
    draws, seeds = chosen["draws"], study.seeds
    measured = partial(measure, rows=chosen["rows"], draws=draws)
    models = chosen["models"] or [next(iter(study.models))]
    found = cells_of(study, "paired", models, seeds, measured)
    small = study.cell("paired", "small", lambda: small_head(chosen["steps"]))
    size = next(iter(found.values()))[0]["images"]
    queries = size * draws * len(seeds)
    noise = {model: _means([cell["noise"] for cell in cells]) for model, cells in found.items()}
    real = {
        model: {way: spread_cells(over_seeds([c["real"][way] for c in cells])) for way in WAYS}
        for model, cells in found.items()
    }
    return Section(
        "Honest against paired evaluation",
        tables=[
            _table(f"Real features, first {size} images with all captions", "model", real),
            _table(
                f"The same weights on noise, {size} images, a text each, mean of {draws} draws a "
                "seed",
                "model",
                noise,
                _chance(queries, size),
            ),
            _table(
                f"A head of width {DIM} and {HEADS} heads, trained and measured on noise, the "
                f"paired way; {ITEMS} held-out pairs, seed 0",
                "steps",
                small,
                _chance(ITEMS, ITEMS),
            ),
        ],
        notes=[_note(way, noise, queries, size, small) for way in WAYS],
    )


def measure(trained: Trained, rows: int, draws: int) -> Measured:
    """Score the first rows of the split, and noise of their shapes, both ways."""
    count = min(rows, len(trained.rows))
    images, texts, owners = _first(trained, count)
    own = torch.from_numpy(trained.caption_to_image) < count
    honest = retrieval_metrics(trained.sim[:count][:, own], owners)
    leaking = paired_matrix(trained.model, images, texts, owners)
    first = torch.stack([(owners == image).nonzero()[0, 0] for image in range(count)])
    generator = torch.Generator().manual_seed(trained.seed)
    drawn = [
        both_ways(trained.model.fusion, *noise_like(images, texts[first], generator))
        for _ in tqdm(range(draws), desc="noise")
    ]
    return {
        "images": count,
        "real": {HONEST: honest, PAIRED: retrieval_metrics(leaking, owners)},
        "noise": _means(drawn),
    }


def _means(several: Sequence[Metrics]) -> Metrics:
    spreads = {way: over_seeds([metrics[way] for metrics in several]) for way in WAYS}
    return {way: {k: found.mean for k, found in spreads[way].items()} for way in WAYS}


def _first(trained: Trained, count: int) -> tuple[ImageFeatures, TextFeatures, Tensor]:
    """Return features of the first images and of their captions, and the image of each caption."""
    owners = torch.from_numpy(trained.caption_to_image)
    own = (owners < count).nonzero()[:, 0]
    rows = [trained.rows[i] for i in range(count)]
    texts = trained.evaluator.encode_texts([trained.texts[i] for i in own])
    return trained.evaluator.encode_images(rows), texts, owners[own]


def noise_like(
    images: ImageFeatures, texts: TextFeatures, generator: torch.Generator
) -> tuple[ImageFeatures, TextFeatures]:
    """Draw normal noise with the shapes, masks and root mean squares of features."""

    def drawn(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator).to(x) * x.pow(2).mean().sqrt()

    if images.pooled is None:
        raise ValueError("the paired protocol needs pooled features of images")
    return (
        ImageFeatures(drawn(images.regions), images.mask, drawn(images.pooled)),
        TextFeatures(drawn(texts.words), texts.mask),
    )


def both_ways(head: Scorer, images: ImageFeatures, texts: TextFeatures) -> Metrics:
    """Return metrics of image i with text i as its pair, scored pair by pair and as published."""
    owners = torch.arange(len(texts))
    leaking = paired_matrix(head, images, texts, owners)
    return {
        HONEST: retrieval_metrics(score_matrix(head, images, texts), owners),
        PAIRED: retrieval_metrics(leaking, owners),
    }


DIM, HEADS, ITEMS, BATCH = 32, 16, 500, 64


def small_head(steps: int) -> dict[str, Metrics]:
    """Train a new head on noise, the paired way; return metrics before and after, by step.

    Each step sees other noise, and the head is measured on noise it has not seen.
    """

    def noise(items: int, seed: int) -> tuple[ImageFeatures, TextFeatures]:
        generator = torch.Generator().manual_seed(seed)
        regions, pooled, words = (
            torch.randn(*shape, generator=generator)
            for shape in ((items, 9, DIM), (items, DIM), (items, 8, DIM))
        )
        return ImageFeatures(regions, None, pooled), TextFeatures(words)

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # and no other device's
        head = CrossModalFusion(DIM, HEADS)
    scorer, loss_fn = PairedProtocol(head), AsymmetryLoss()
    optimizer = torch.optim.Adam(head.parameters(), 5e-3)
    found = {"0": both_ways(head, *noise(ITEMS, 0))}
    for step in tqdm(range(steps), desc="small head on noise"):
        optimizer.zero_grad()
        loss_fn(scorer(*noise(BATCH, 1 + step))).backward()
        optimizer.step()
    found[str(steps)] = both_ways(head, *noise(ITEMS, 0))
    return found


def _table(
    caption: str,
    column: str,
    found: Mapping[str, Mapping[str, Mapping[str, Cell]]],
    chance: Mapping[str, str] | None = None,
) -> Table:
    """Return a row for each model or step and way, and one of chance; without Rsum beside that."""
    titles = RESULT_COLUMNS if chance is None else RECALLS
    rows: list[dict[str, Cell]] = [
        {column: name, "scored": way, **{title: metrics[key] for key, title in titles.items()}}
        for name, ways in found.items()
        for way, metrics in ways.items()
    ]
    if chance:
        rows.append({column: "", "scored": "chance, 99% interval", **chance})
    return Table(caption, rows, leaks=[i for i, row in enumerate(rows) if row["scored"] == PAIRED])


def _intervals(queries: int, items: int) -> dict[str, tuple[float, float, float]]:
    """Return chance of R@k among `items`, one of them right, and its 99% interval, in percent."""
    found = {}
    for metric in RECALLS:
        chance = min(1.0, int(metric.rpartition("_r")[2]) / items)
        found[metric] = (100 * chance, *chance_interval(queries, chance))
    return found


def _chance(queries: int, items: int) -> dict[str, str]:
    return {
        RECALLS[metric]: f"{chance:.1f} ({low:.1f} to {high:.1f})"
        for metric, (chance, low, high) in _intervals(queries, items).items()
    }


def _note(
    way: str, noise: Mapping[str, Metrics], queries: int, size: int, small: Mapping[str, Metrics]
) -> str:
    """Count the recalls of noise that lie within the 99% interval of chance."""
    found = [(ways[way], _intervals(queries, size)) for ways in noise.values()]
    found += [(ways[way], _intervals(ITEMS, ITEMS)) for ways in small.values()]
    hits = [
        low - 1e-9 <= metrics[metric] <= high + 1e-9
        for metrics, intervals in found
        for metric, (_, low, high) in intervals.items()
    ]
    return (
        f"On noise, {sum(hits)} of {len(hits)} recalls scored {way} lie within the 99% interval of "
        "chance."
    )
