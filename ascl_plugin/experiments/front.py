"""Recall against sensitivity to half-truths: one point for each objective, in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from ascl_plugin.asymmetry.captions.balanced import BalancedPair
from ascl_plugin.asymmetry.captions.variants import Variants
from ascl_plugin.experiments.plan import Settings, with_defaults
from ascl_plugin.experiments.study import Study, Trained, cells_of
from ascl_plugin.metrics.protocols import protocol_metrics
from ascl_plugin.metrics.statistics import over_seeds
from ascl_plugin.report.document import Figure, Section
from ascl_plugin.report.plots import label, legend, panels, save
from ascl_plugin.report.table import Cell, Table, spread_cells
from ascl_plugin.retrieval.asymmetry_benchmark import balanced_benchmark, variant_benchmark
from ascl_plugin.retrieval.suites import balanced_of, variants_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Value of a cell -> its name in the table.
COLUMNS = {
    "rsum": "Rsum",
    "pairs": "balanced pairs",
    "groups": "balanced groups",
    "naive": "phrase added",
    "blind": "phrase added, blind",
}


def experiment(study: Study, settings: Settings) -> Section:
    """Return Rsum and the accuracies on half-truths of each model, and their picture.

    Args:
        study: at least one model.
        settings: `models`, by default all; `baseline`, the one that is marked, by default the
            first; `rows`, the number of images whose captions get a false phrase, for the accuracy
            that needs no image (200); `balanced`, pairs of images of each kind (by default one for
            each image, where there is one).

    Raises:
        ImportError: real captions, and no tagger (extra `words`).
        ValueError: an unknown setting, or a baseline that is not among the models.
    """
    defaults = {"models": list(study.models), "baseline": None, "rows": 200, "balanced": None}
    settings = with_defaults("front", settings, defaults)
    models = settings["models"]
    baseline = settings["baseline"] or models[0]
    if baseline not in models:
        raise ValueError(f"front: baseline {baseline!r} is not one of {', '.join(models)}")
    balanced = cache(lambda: balanced_of(study.rows(), settings["balanced"]))
    variants = cache(partial(_variants, study, settings["rows"]))
    found = cells_of(
        study, "front", models, study.seeds, lambda run: measure(run, balanced(), variants())
    )
    rows: list[dict[str, Cell]] = []
    for model, cells in found.items():
        spreads = spread_cells([{COLUMNS[k]: v for k, v in cell.items()} for cell in cells])
        rows.append({"model": model, **spreads})
    path = study.path("front", "front.svg")
    save(partial(_draw, found, baseline), path, (9, 4.6))
    caption = (
        "Left, recall against balanced half-truths: means over seeds with an ellipse of one "
        f"deviation; dotted lines: {baseline}. Right, the accuracy against captions with a false "
        "phrase added, with and without the image: what is on the dotted line needs no image"
    )
    return Section(
        "Recall and half-truths",
        tables=[Table("In percent but Rsum; mean ± deviation over seeds", rows)],
        figures=[Figure(path, caption)],
        notes=[
            "balanced: over the sets of all kinds; pairs are 50 and groups 0 without the image",
            "blind: the mean image in place of each",
        ],
    )


def measure(
    trained: Trained, balanced: Sequence[BalancedPair], variants: Sequence[Variants]
) -> dict[str, float]:
    """Return the values of `COLUMNS`; balanced ones are over the sets of all kinds."""
    kinds = list(balanced_benchmark(trained.evaluator, trained.rows, balanced).values())
    sets = [kind["count"] for kind in kinds]
    naive = variant_benchmark(trained.evaluator, trained.rows, variants)["negatives"]["add"]
    return {
        "rsum": protocol_metrics(trained.sim, trained.caption_to_image)["rsum"],
        "pairs": float(np.average([kind["pairs"] for kind in kinds], weights=sets)),
        "groups": float(np.average([kind["groups"] for kind in kinds], weights=sets)),
        "naive": naive["accuracy"],
        "blind": naive["blind"],
    }


def _variants(study: Study, count: int) -> list[Variants]:
    rows = study.rows()
    chosen = np.random.default_rng(0).permutation(len(rows))[:count]
    return variants_of(rows, sorted(chosen.tolist()))


def _draw(found: Mapping[str, Sequence[Mapping[str, float]]], baseline: str, axes: Axes) -> None:
    from matplotlib.patches import Ellipse

    front, naive = panels(axes, 2)
    for place, (model, cells) in enumerate(found.items()):
        spread, color = over_seeds(cells), f"C{place % 6}"
        (x, across), (y, up) = spread["rsum"], spread["pairs"]
        marker = "*" if model == baseline else "osD^vXPh"[place % 8]
        size = 12 if model == baseline else 7
        front.plot(x, y, marker, color=color, markersize=size, label=label(model))
        naive.plot(spread["blind"][0], spread["naive"][0], marker, color=color, markersize=size)
        if across and up:
            front.add_patch(
                Ellipse((x, y), 2 * across, 2 * up, color=color, alpha=0.2, linewidth=0)
            )
        if model == baseline:
            front.axvline(x, color=color, linestyle=":", linewidth=1)
            front.axhline(y, color=color, linestyle=":", linewidth=1)
    naive.axline((50, 50), slope=1, color="0.5", linestyle=":", linewidth=1)
    front.set(xlabel="Rsum", ylabel="balanced half-truths told, in percent")
    naive.set(xlabel="the same without the image", ylabel="phrases added told, in percent")
    legend(front)
