"""t-SNE of images and texts, two models side by side (ACF-R+, Figures 5 and 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch

from ascl_plugin.experiments.plan import Settings
from ascl_plugin.experiments.study import Study, Trained, cells_of, models_of
from ascl_plugin.report.document import Figure, Section
from ascl_plugin.report.plots import legend, panels, save
from ascl_plugin.report.table import Cell, Table
from ascl_plugin.scoring.search import image_embeddings, text_embeddings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTES = [
    "Vectors are those of the experiment `geometry`: each side alone, before attention, at unit "
    "length. t-SNE runs once for each model, on its sample of images and texts together; both "
    "figures show that run, of the first seed.",
    "t-SNE keeps neighbors, not distances: how wide a cloud is, and how far apart two points of "
    "it lie, cannot be compared between two panels. The numbers are in `geometry`.",
]


class Places(TypedDict):
    """Places in the plane: images (N, 2), texts (M, 2), and the index of each text's image (M,)."""

    images: list[list[float]]
    texts: list[list[float]]
    owners: list[int]
    kl_divergence: float


def experiment(study: Study, settings: Settings) -> Section:
    """Return pictures of the first seed of each model.

    Args:
        study: at least one model.
        settings: `models`, by default the first two; `items`, images sampled, each with one caption
            (500); `pairs`, images of these that come with all captions and are shown in colors
            (5, at most 6); `perplexity` (30).

    Raises:
        ImportError: no scikit-learn.
        ValueError: more pairs than colors or items; fewer items than t-SNE needs.
    """
    pairs, items = settings.get("pairs", 5), settings.get("items", 500)
    if not 1 <= pairs <= min(6, items):
        raise ValueError(f"pairs must be 1 to 6, and at most the {items} items, got {pairs}")
    perplexity, seed = settings.get("perplexity", 30), study.seeds[0]
    sampled = partial(measure, pairs=pairs, items=items, perplexity=perplexity)
    cells = cells_of(study, "tsne", models_of(study, settings), [seed], sampled)
    found = {model: places for model, (places,) in cells.items()}
    size = (4.0 * len(found), 4.4)
    colored, spread = (study.path("tsne", name) for name in ("pairs.svg", "spread.png"))
    save(partial(_draw_pairs, found, pairs), colored, size)
    save(partial(_draw_spread, found), spread, size)
    rows: list[dict[str, Cell]] = [
        {
            "model": model,
            "seed": str(seed),
            "images": len(cell["images"]),
            "texts": len(cell["texts"]),
            "KL divergence": f"{cell['kl_divergence']:.3f}",
        }
        for model, cell in found.items()
    ]
    caption = "images (+) and their captions (o), one color each, among the others (gray)"
    figures = [
        Figure(colored, f"{pairs} {caption}"),
        Figure(spread, "All sampled images (+) and texts (o)"),
    ]
    tables = [Table(f"t-SNE, perplexity {perplexity}, as scikit-learn fits it", rows)]
    return Section("t-SNE of images and texts", tables=tables, figures=figures, notes=NOTES)


def measure(trained: Trained, pairs: int, items: int, perplexity: float = 30.0) -> Places:
    """Return places in the plane of `items` images, or of all, and of their texts."""
    images, texts = sample(trained.caption_to_image, len(trained.rows), pairs, items, 0)
    rows = [trained.rows[row] for row in images.tolist()]
    v = image_embeddings(trained.evaluator.encode_images(rows))
    words = trained.evaluator.encode_texts([trained.texts[text] for text in texts.tolist()])
    places, divergence = plane(torch.cat([v, text_embeddings(words)]).numpy(), perplexity, 0)
    place_of = {row: place for place, row in enumerate(images.tolist())}
    return {
        "images": places[: len(v)].round(3).tolist(),
        "texts": places[len(v) :].round(3).tolist(),
        "owners": [place_of[row] for row in trained.caption_to_image[texts].tolist()],
        "kl_divergence": divergence,
    }


def sample(
    caption_to_image: np.ndarray, images: int, pairs: int, items: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw images, with all captions of the first `pairs` of them and one of each other.

    Returns:
        rows (N,), texts (M,), int64.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(images)[:items]
    texts: list[int] = []
    for place, row in enumerate(rows):
        own = np.flatnonzero(caption_to_image == row)
        texts.extend(own if place < pairs else rng.choice(own, 1))
    return rows, np.array(texts)


def plane(vectors: np.ndarray, perplexity: float, seed: int) -> tuple[np.ndarray, float]:
    """Return t-SNE (N, 2) of vectors (N, D), and its Kullback-Leibler divergence.

    Raises:
        ImportError: no scikit-learn.
        ValueError: no more vectors than the perplexity.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ImportError('t-SNE needs `pip install "ascl-plugin[report]"`') from error
    if len(vectors) <= perplexity:
        raise ValueError(
            f"t-SNE of {len(vectors)} vectors needs a perplexity below that, got {perplexity}"
        )
    fit = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    return fit.fit_transform(vectors), float(fit.kl_divergence_)


def _draw_pairs(found: Mapping[str, Places], pairs: int, axes: Axes) -> None:
    for place, v, w, owners in _panels(found, axes):
        x, y = np.concatenate([v, w]).T
        place.scatter(x, y, s=3, color="grey", alpha=0.5, linewidths=0)
        for image in range(pairs):
            own, color = w[owners == image], f"C{image}"
            place.scatter(
                own[:, 0], own[:, 1], s=26, marker="o", facecolors="none", edgecolors=color
            )
            place.scatter(v[image, 0], v[image, 1], s=90, marker="+", color=color, linewidths=2)


def _draw_spread(found: Mapping[str, Places], axes: Axes) -> None:
    for place, v, w, _ in _panels(found, axes):
        place.scatter(v[:, 0], v[:, 1], s=22, marker="+", linewidths=1, label="images")
        place.scatter(w[:, 0], w[:, 1], s=9, alpha=0.7, linewidths=0, label="texts")
    legend(place)


def _panels(
    found: Mapping[str, Places], axes: Axes
) -> Iterator[tuple[Axes, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield a bare square for each model, for the axes of t-SNE mean nothing, and its places."""
    for place, (model, cell) in zip(panels(axes, len(found)), found.items(), strict=True):
        place.set(title=model, xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        place.spines[:].set_visible(True)
        yield place, np.array(cell["images"]), np.array(cell["texts"]), np.array(cell["owners"])
