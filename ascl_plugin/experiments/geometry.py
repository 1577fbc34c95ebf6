"""Alignment and uniformity: distances of positive pairs and of different items (Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from ascl_plugin.experiments.plan import Settings
from ascl_plugin.experiments.study import Study, Trained, cells_of, models_of
from ascl_plugin.metrics.statistics import over_seeds
from ascl_plugin.report.document import Figure, Section
from ascl_plugin.report.plots import bars, legend, panels, save
from ascl_plugin.report.table import Cell, Table, spread_cells
from ascl_plugin.retrieval.geometry import differences, own_distances, positives, siblings
from ascl_plugin.scoring.search import image_embeddings, text_embeddings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Name of a set of pairs -> `Distances` as a mapping.
Measured = dict[str, dict[str, float]]
#: Column of a table -> set of pairs, and which of its `Distances`.
Columns = dict[str, tuple[str, str]]

MATCHING = {
    "image_text": "image-text",
    "text_text": "text-text",
    "own_image_text": "image-text, attended",
}
DIFFERENT = {"images": "images", "texts": "texts"}
TABLES: dict[str, Columns] = {
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


NOTES = [
    "An image's vector is the mean of the projected regions, a text's the mean of its projected "
    "words, at unit length: each side alone, before attention. With cross-modal fusion no such "
    "vector enters a score, and none was trained as one; the papers do not say which vectors they "
    "took.",
    "Attended: the distance of V_g from W_g, the vectors of a pair as its text and image attend to "
    "each other, whose cosine is the global score. They exist for pairs alone.",
    "Different images are any two; different texts are captions of two different images.",
    "Distances also shrink where all features move together: read positives beside different "
    "items.",
]


def experiment(study: Study, settings: Settings) -> Section:
    """Return tables and plots of the distances of every model and seed.

    Args:
        study: at least one model.
        settings: `models`, by default the first two.
    """
    found = cells_of(study, "geometry", models_of(study, settings), study.seeds, measure)
    tables = [
        Table(f"{caption}; mean ± deviation over seeds", [
            _row(columns, cells, model=model) for model, cells in found.items()
        ])
        for caption, columns in TABLES.items()
    ]  # fmt: skip
    columns = {name: column for table in TABLES.values() for name, column in table.items()}
    by_seed = [
        _row(columns, [cell], model=model, seed=str(seed))
        for model, cells in found.items()
        for seed, cell in zip(study.seeds, cells, strict=True)
    ]
    positive, different = (
        study.path("geometry", name) for name in ("positives.svg", "different.svg")
    )
    save(partial(_draw_positives, found), positive)
    save(partial(_draw_different, found), different, (8, 4))
    figures = [
        Figure(positive, "Mean distance of positive pairs; lower is nearer"),
        Figure(different, "Distances of different items: mean and variance"),
    ]
    tables.append(Table("The same by seed", by_seed))
    return Section("Alignment and uniformity", tables=tables, figures=figures, notes=NOTES)


def measure(trained: Trained) -> Measured:
    """Return the distances of one model on its split."""
    owners = torch.as_tensor(trained.caption_to_image)
    images = trained.evaluator.encode_images(list(trained.rows))
    texts = trained.evaluator.encode_texts(trained.texts)
    v, w = image_embeddings(images), text_embeddings(texts)
    found = {
        "image_text": positives(v, w, owners),
        "text_text": siblings(w, owners),
        "own_image_text": own_distances(trained.model, images, texts, owners),
        "images": differences(v, progress=True),
        "texts": differences(w, owners, progress=True),
    }
    return {name: values._asdict() for name, values in found.items() if values is not None}


def _chosen(cells: Sequence[Measured], columns: Columns) -> list[dict[str, float]]:
    """Return column -> value of each cell, for the pairs that the model has."""
    there = {name: (of, what) for name, (of, what) in columns.items() if of in cells[0]}
    return [{name: cell[of][what] for name, (of, what) in there.items()} for cell in cells]


def _row(columns: Columns, cells: Sequence[Measured], **names: Cell) -> dict[str, Cell]:
    return names | spread_cells(_chosen(cells, columns), ".3f")


def _draw_positives(found: dict[str, list[Measured]], axes: Axes) -> None:
    everywhere = set.intersection(*(set(cells[0]) for cells in found.values()))
    kinds = {kind: name for kind, name in MATCHING.items() if kind in everywhere}
    _bars(axes, found, kinds, "mean")
    axes.set_ylabel("mean distance")
    legend(axes)


def _draw_different(found: dict[str, list[Measured]], axes: Axes) -> None:
    for place, what in zip(panels(axes, 2), ("mean", "variance"), strict=True):
        _bars(place, found, DIFFERENT, what)
        place.set_ylabel(f"{what} of distances")
    legend(place)


def _bars(axes: Axes, found: dict[str, list[Measured]], kinds: dict[str, str], what: str) -> None:
    columns = {kind: (kind, what) for kind in kinds}
    series = {
        model: list(over_seeds(_chosen(cells, columns)).values()) for model, cells in found.items()
    }
    bars(axes, list(kinds.values()), series, ".3f")
