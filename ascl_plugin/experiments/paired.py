"""Honest against paired scores: on real features and on pure noise, with the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ascl_plugin.experiments.results import Result, Table
from ascl_plugin.experiments.study import Study, Trained
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion
from ascl_plugin.interfaces import Scorer
from ascl_plugin.losses import AsymmetryLoss
from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.metrics.statistics import chance_interval, over_seeds
from ascl_plugin.report.tables import RESULT_COLUMNS, spread_cells
from ascl_plugin.scoring.matrix import score_matrix
from ascl_plugin.scoring.paired_protocol import ROW as PAIRED
from ascl_plugin.scoring.paired_protocol import PairedProtocol

HONEST = "pair by pair"
RECALLS = {name: title for name, title in RESULT_COLUMNS.items() if name != "rsum"}
#: rows: of the split, the first ones. draws: of noise. steps: of the small head.
DEFAULTS = {"models": None, "rows": 200, "draws": 20, "steps": 50}

Metrics = dict[str, dict[str, float]]  # how it was scored -> recalls in percent


def experiment(study: Study, settings: dict[str, Any]) -> Result:
    """Scores models both ways; so, too, a small head that is trained on noise as published.

    Args:
        study: with models whose fusion is a `CrossModalFusion`.
        settings: `models` (default: the first), `rows`, `draws` and `steps`, see `DEFAULTS`.

    Raises:
        ValueError: a setting of another name.
        TypeError: a model without `CrossModalFusion`.
    """
    if unknown := settings.keys() - DEFAULTS:
        raise ValueError(f"paired: no setting {min(unknown)!r}; there are {', '.join(DEFAULTS)}")
    chosen: dict[str, Any] = {**DEFAULTS, **settings}
    real, noise, within = [], [], {HONEST: [0, 0], PAIRED: [0, 0]}
    for name in chosen["models"] or [next(iter(study.models))]:
        cells = [_cell(study, name, seed, chosen) for seed in study.seeds]
        size, asked = cells[0]["images"], cells[0]["images"] * chosen["draws"] * len(cells)
        for way in (HONEST, PAIRED):
            spread = spread_cells(over_seeds([cell["real"][way] for cell in cells]))
            real.append({"model": name, "scored": way} | _titled(spread, RESULT_COLUMNS))
            mean = over_seeds([cell["noise"][way] for cell in cells])
            found = {metric: value.mean for metric, value in mean.items()}
            noise.append({"model": name, "scored": way} | _titled(found, RECALLS))
            _count(within[way], found, asked, size)
        noise.append({"model": name, "scored": "chance, 99% interval"} | _chance(asked, size))
    small, head = [], study.cell("paired", "small", lambda: small_head(chosen["steps"]))
    for steps, ways in head.items():
        for way, found in ways.items():
            small.append({"steps": steps, "scored": way} | _titled(found, RECALLS))
            _count(within[way], found, ITEMS, ITEMS)
    small.append({"steps": "", "scored": "chance, 99% interval"} | _chance(ITEMS, ITEMS))
    return Result(
        "Honest against paired evaluation",
        [
            Table(f"Real features, the first {size} images with all their captions", real),
            Table(
                f"The same weights on noise, {size} images, a text each, mean of "
                f"{chosen['draws']} draws a seed",
                noise,
            ),
            Table(
                f"A head of width {DIM} and {HEADS} heads, trained and measured on noise, the "
                f"paired way; {ITEMS} held-out pairs, seed 0",
                small,
            ),
        ],
        notes=[
            f"On noise, {inside} of {all_} recalls scored {way} lie within the 99% interval of "
            "chance."
            for way, (inside, all_) in within.items()
        ],
    )


def _cell(study: Study, name: str, seed: int, chosen: Mapping[str, Any]) -> dict[str, Any]:
    def make() -> dict[str, Any]:
        trained = study.trained(name, seed)
        count = min(chosen["rows"], len(trained.rows))
        images, texts, owners = _first(trained, count)
        own = torch.from_numpy(trained.caption_to_image) < count
        honest = retrieval_metrics(trained.sim[:count][:, own], owners)
        leaking = score_matrix(
            trained.model, images, texts, protocol="paired", caption_to_image=owners
        )
        first = torch.stack([(owners == image).nonzero()[0, 0] for image in range(count)])
        generator = torch.Generator().manual_seed(seed)
        drawn = [
            both_ways(trained.model.fusion, *noise_like(images, texts[first], generator))
            for _ in tqdm(range(chosen["draws"]), desc=f"{name}-{seed} on noise")
        ]
        return {
            "images": count,
            "real": {HONEST: honest, PAIRED: retrieval_metrics(leaking, owners)},
            "noise": {
                way: {metric: s.mean for metric, s in over_seeds([d[way] for d in drawn]).items()}
                for way in (HONEST, PAIRED)
            },
        }

    return study.cell("paired", f"{name}-{seed}", make)


def _first(trained: Trained, count: int) -> tuple[ImageFeatures, TextFeatures, Tensor]:
    """Features of the first images and of their captions, and the image of each caption."""
    owners = torch.from_numpy(trained.caption_to_image)
    own = (owners < count).nonzero()[:, 0]
    rows = [trained.rows[i] for i in range(count)]
    texts = trained.evaluator.encode_texts([trained.texts[i] for i in own])
    return trained.evaluator.encode_images(rows), texts, owners[own]


def noise_like(
    images: ImageFeatures, texts: TextFeatures, generator: torch.Generator
) -> tuple[ImageFeatures, TextFeatures]:
    """Normal noise of the shapes, masks and root mean squares of features; nothing else of them."""

    def drawn(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator).to(x) * x.pow(2).mean().sqrt()

    if images.pooled is None:
        raise ValueError("the paired protocol needs pooled features of images")
    return (
        ImageFeatures(drawn(images.regions), images.mask, drawn(images.pooled)),
        TextFeatures(drawn(texts.words), texts.mask),
    )


def both_ways(head: Scorer, images: ImageFeatures, texts: TextFeatures) -> Metrics:
    """Metrics of image i with text i as its pair, scored pair by pair and as published."""
    owners = torch.arange(len(texts))
    leaking = score_matrix(head, images, texts, protocol="paired", caption_to_image=owners)
    return {
        HONEST: retrieval_metrics(score_matrix(head, images, texts), owners),
        PAIRED: retrieval_metrics(leaking, owners),
    }


DIM, HEADS, ITEMS, BATCH = 32, 16, 500, 64


def small_head(steps: int) -> dict[str, Metrics]:
    """A new head as it is made and after steps of training on noise, the paired way.

    Each step sees other noise, and it is measured on noise it has not seen.
    """

    def noise(items: int, seed: int) -> tuple[ImageFeatures, TextFeatures]:
        generator = torch.Generator().manual_seed(seed)
        regions, pooled, words = (
            torch.randn(*shape, generator=generator)
            for shape in ((items, 9, DIM), (items, DIM), (items, 8, DIM))
        )
        return ImageFeatures(regions, None, pooled), TextFeatures(words)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
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


def _titled(cells: Mapping[str, Any], titles: Mapping[str, str]) -> dict[str, Any]:
    return {title: cells[name] for name, title in titles.items()}


def _rank(metric: str) -> int:
    return int(metric.rpartition("_r")[2])


def _chance(queries: int, items: int) -> dict[str, str]:
    """Chance of R@k among `items`, one of them right, and its 99% interval, a cell each."""
    cells = {}
    for metric, title in RECALLS.items():
        chance = min(1.0, _rank(metric) / items)
        low, high = chance_interval(queries, chance)
        cells[title] = f"{100 * chance:.1f} ({low:.1f} to {high:.1f})"
    return cells


def _count(tally: list[int], found: Mapping[str, float], queries: int, items: int) -> None:
    """Adds to (recalls within the 99% interval of chance, recalls)."""
    for metric in RECALLS:
        low, high = chance_interval(queries, min(1.0, _rank(metric) / items))
        tally[0] += low - 1e-9 <= found[metric] <= high + 1e-9
        tally[1] += 1
