"""Alignment and uniformity: how far positive pairs and different items lie apart (Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ascl_plugin.experiments.results import Figure, Result, Table
from ascl_plugin.experiments.study import cells_of
from ascl_plugin.metrics.statistics import Spread, over_seeds
from ascl_plugin.report.plots import bars, legend, panels, save
from ascl_plugin.report.tables import spread_cells
from ascl_plugin.retrieval.geometry import differences, own_distances, positives, siblings
from ascl_plugin.scoring.search import image_embeddings, text_embeddings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ascl_plugin.experiments.study import Study, Trained

Cell = dict[str, dict[str, float]]

MATCHING = {
    "image_text": "image-text",
    "text_text": "text-text",
    "own_image_text": "image-text, attended",
}
DIFFERENT = {"images": "images", "texts": "texts"}
# column -> which distances, and what of them
TABLES = {
    "Euclidean distances, as the papers measure them": {
        "positive image-text": ("image_text", "mean"),
        "positive text-text": ("text_text", "mean"),
        "positive image-text, attended": ("own_image_text", "mean"),
        "different images": ("images", "mean"),
        "their variance": ("images", "variance"),
        "different texts": ("texts", "mean"),
        "variance of these": ("texts", "variance"),
    },
    "Alignment (mean squared distance) and uniformity (log mean exp(-2 d²)); lower is better": {
        "alignment image-text": ("image_text", "alignment"),
        "alignment text-text": ("text_text", "alignment"),
        "uniformity images": ("images", "uniformity"),
        "uniformity texts": ("texts", "uniformity"),
    },
}


def experiment(study: Study, settings: dict[str, Any]) -> Result:
    """Tables and plots of the distances of every model and seed.

    Args:
        study: of at least one model.
        settings: `models`, by default the first two; `image`, of which feature an image's vector is
            made: "regions" (default) or "pooled".
    """
    of = settings.get("image", "regions")
    found: dict[str, list[Cell]] = cells_of(
        study, "geometry", settings, study.seeds, partial(measure, of=of)
    )
    tables = [
        Table(f"{caption}; mean ± deviation over seeds", _rows(found, columns))
        for caption, columns in TABLES.items()
    ]
    columns = {name: column for table in TABLES.values() for name, column in table.items()}
    tables.append(Table("The same by seed", _rows_by_seed(found, study.seeds, columns)))
    save(partial(_draw_positives, found), study.path("geometry", "positives.svg"))
    save(partial(_draw_different, found), study.path("geometry", "different.svg"), (8, 4))
    figures = [
        Figure("positives.svg", "Mean distance of positive pairs; lower is nearer"),
        Figure("different.svg", "Distances of different items: mean and variance"),
    ]
    return Result("Alignment and uniformity", tables, figures, _notes(of))


def measure(trained: Trained, of: str = "regions") -> Cell:
    """The distances of one model on its split, by name, each with the fields of `Distances`."""
    owners = torch.as_tensor(trained.caption_to_image)
    images = trained.evaluator.encode_images(trained.rows)
    texts = trained.evaluator.encode_texts(trained.texts)
    v, w = image_embeddings(images, of), text_embeddings(texts)
    found = {
        "image_text": positives(v, w, owners),
        "text_text": siblings(w, owners),
        "own_image_text": own_distances(trained.model, images, texts, owners),
        "images": differences(v, progress=True),
        "texts": differences(w, owners, progress=True),
    }
    return {name: values._asdict() for name, values in found.items() if values is not None}


def _spreads(cells: Sequence[Cell], columns: dict[str, tuple[str, str]]) -> dict[str, Spread]:
    """Column -> mean and deviation over cells, of what the model has."""
    there = {name: (of, what) for name, (of, what) in columns.items() if of in cells[0]}
    return over_seeds([{n: c[of][what] for n, (of, what) in there.items()} for c in cells])


def _rows(
    found: dict[str, list[Cell]], columns: dict[str, tuple[str, str]]
) -> list[dict[str, Any]]:
    return [
        {"model": model} | spread_cells(_spreads(cells, columns), ".3f")
        for model, cells in found.items()
    ]


def _rows_by_seed(
    found: dict[str, list[Cell]], seeds: Sequence[int], columns: dict[str, tuple[str, str]]
) -> list[dict[str, Any]]:
    return [
        {"model": model, "seed": str(seed)} | spread_cells(_spreads([cell], columns), ".3f")
        for model, cells in found.items()
        for seed, cell in zip(seeds, cells, strict=True)
    ]


def _draw_positives(found: dict[str, list[Cell]], axes: Axes) -> None:
    kinds = {
        kind: name for kind, name in MATCHING.items() if all(kind in c[0] for c in found.values())
    }
    _bars(axes, found, kinds, "mean")
    axes.set_ylabel("mean distance")
    legend(axes)


def _draw_different(found: dict[str, list[Cell]], axes: Axes) -> None:
    for place, what in zip(panels(axes, 2), ("mean", "variance"), strict=True):
        _bars(place, found, DIFFERENT, what)
        place.set_ylabel(f"{what} of distances")
    legend(place)


def _bars(axes: Axes, found: dict[str, list[Cell]], kinds: dict[str, str], what: str) -> None:
    columns = {kind: (kind, what) for kind in kinds}
    series = {model: list(_spreads(cells, columns).values()) for model, cells in found.items()}
    bars(axes, list(kinds.values()), series, ".3f")


def _notes(of: str) -> list[str]:
    whole = "mean of the projected regions" if of == "regions" else "projected whole-image feature"
    return [
        f"An image's vector is the {whole}, a text's the mean of its projected words, at unit "
        "length: each side alone, before attention. With cross-modal fusion no such vector enters "
        "a score, and none was trained as one; which vectors the papers took they do not say.",
        "Attended: the distance of V_g from W_g, the vectors of a pair as its text and image "
        "attend to each other, whose cosine is the global score. They exist for pairs alone.",
        "Different images are any two; different texts are captions of two different images.",
        "Distances also shrink where all features move together: read positives beside different "
        "items.",
    ]
