"""Honest against paired scores: on real features and on pure noise, with the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

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
DIM, HEADS, ITEMS, BATCH = 32, 16, 500, 64  # of the small head and its noise
#: rows: the first ones of the split. draws: of noise. steps: of the small head.
DEFAULTS: Settings = {"models": None, "rows": 200, "draws": 20, "steps": 50}

#: One of `WAYS` -> metrics in percent.
Metrics = dict[str, dict[str, float]]


def experiment(study: Study, settings: Settings) -> Section:
    """Score models both ways, and a small head that is trained on noise as published.

    Args:
        study: models whose fusion is a `CrossModalFusion`.
        settings: `models` (default: the first), `rows`, `draws` and `steps`, see `DEFAULTS`.

    Raises:
        TypeError: a model without `CrossModalFusion`.
    """
    chosen = with_defaults("paired", settings, DEFAULTS)
    draws = chosen["draws"]
    measured = partial(measure, rows=chosen["rows"], draws=draws)
    models = chosen["models"] or list(study.models)[:1]
    found = cells_of(study, "paired", models, study.seeds, measured)
    small = study.cell("paired", "small", lambda: small_head(chosen["steps"]))
    size = found[models[0]][0]["images"]
    chance, small_chance = _chance(size * draws * len(study.seeds), size), _chance(ITEMS, ITEMS)
    noise = {model: _means([cell["noise"] for cell in cells]) for model, cells in found.items()}
    real = {
        model: {way: spread_cells([cell["real"][way] for cell in cells]) for way in WAYS}
        for model, cells in found.items()
    }
    trained = (
        f"A head of width {DIM} and {HEADS} heads, trained and measured on noise, the paired way; "
        f"{ITEMS} held-out pairs, seed 0"
    )
    same = f"The same weights on noise, {size} images, a text each, mean of {draws} draws a seed"
    return Section(
        "Honest against paired evaluation",
        tables=[
            _table(f"Real features, first {size} images with all captions", "model", real),
            _table(same, "model", noise, chance),
            _table(trained, "steps", small, small_chance),
        ],
        notes=[_note(way, ((noise, chance), (small, small_chance))) for way in WAYS],
    )


def measure(trained: Trained, rows: int, draws: int) -> Settings:
    """Score the first `images` of the split, and noise of their shapes, both ways.

    Returns:
        `images`, their number, and the `Metrics` of `real` features and of `noise`.
    """
    count = min(rows, len(trained.rows))
    owners = torch.from_numpy(trained.caption_to_image)
    own = (owners < count).nonzero()[:, 0]
    owners = owners[own]
    images = trained.evaluator.encode_images([trained.rows[i] for i in range(count)])
    texts = trained.evaluator.encode_texts([trained.texts[i] for i in own])
    first = torch.stack([(owners == image).nonzero()[0, 0] for image in range(count)])
    generator = torch.Generator().manual_seed(trained.seed)
    head = trained.model.fusion
    real = both_ways(head, images, texts, owners, trained.sim[:count][:, own])
    noise = [
        both_ways(head, *noise_like(images, texts[first], generator))
        for _ in tqdm(range(draws), desc="noise")
    ]
    return {"images": count, "real": real, "noise": _means(noise)}


def _means(several: Sequence[Metrics]) -> Metrics:
    spreads = {way: over_seeds([metrics[way] for metrics in several]) for way in WAYS}
    return {way: {k: found.mean for k, found in spreads[way].items()} for way in WAYS}


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


def both_ways(
    head: Scorer,
    images: ImageFeatures,
    texts: TextFeatures,
    owners: Tensor | None = None,
    honest: Tensor | None = None,
) -> Metrics:
    """Return metrics of scores pair by pair and as published.

    Args:
        head, images, texts: as `score_matrix` takes them.
        owners: (T,) image of each text; None: text i belongs to image i.
        honest: (I, T) scores pair by pair, if they are known.
    """
    owners = torch.arange(len(texts)) if owners is None else owners
    honest = score_matrix(head, images, texts) if honest is None else honest
    leaking = paired_matrix(head, images, texts, owners)
    return {way: retrieval_metrics(s, owners) for way, s in ((HONEST, honest), (PAIRED, leaking))}


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


#: Recall -> chance, and low and high of its 99% interval, in percent.
Chance = dict[str, tuple[float, float, float]]


def _chance(queries: int, items: int) -> Chance:
    """Return chance of each recall among `items`, one of them right."""
    shares = {name: min(1.0, int(name.rpartition("_r")[2]) / items) for name in RECALLS}
    return {name: (100 * p, *chance_interval(queries, p)) for name, p in shares.items()}


def _table(
    caption: str,
    column: str,
    found: Mapping[str, Mapping[str, Mapping[str, Cell]]],
    chance: Chance | None = None,
) -> Table:
    """Return a row for each model or step and way, and one of chance; without Rsum beside that."""
    titles = RESULT_COLUMNS if chance is None else RECALLS
    rows: list[dict[str, Cell]] = [
        {column: name, "scored": way, **{title: metrics[key] for key, title in titles.items()}}
        for name, ways in found.items()
        for way, metrics in ways.items()
    ]
    if chance:
        cells = {RECALLS[k]: f"{p:.1f} ({a:.1f} to {b:.1f})" for k, (p, a, b) in chance.items()}
        rows.append({column: "", "scored": "chance, 99% interval", **cells})
    return Table(caption, rows, leaks=[i for i, row in enumerate(rows) if row["scored"] == PAIRED])


def _note(way: str, found: Sequence[tuple[Mapping[str, Metrics], Chance]]) -> str:
    """Count the recalls of noise that lie within the 99% interval of chance."""
    hits = [
        low - 1e-9 <= ways[way][metric] <= high + 1e-9
        for measured, chance in found
        for ways in measured.values()
        for metric, (_, low, high) in chance.items()
    ]
    return (
        f"On noise, {sum(hits)} of {len(hits)} recalls scored {way} lie within the 99% interval of "
        "chance."
    )
