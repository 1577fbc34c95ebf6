"""t-SNE of images and texts, two models side by side (ACF-R+, Figures 5 and 6)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ascl_plugin.experiments.results import Figure, Result, Table
from ascl_plugin.experiments.study import cells_of
from ascl_plugin.report.plots import legend, panels, save
from ascl_plugin.scoring.search import image_embeddings, text_embeddings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ascl_plugin.experiments.study import Study, Trained

Cell = dict[str, Any]
"""`images` (N, 2), `texts` (M, 2), `owners` (M,): the place in `images` of each text's, and
`kl_divergence`."""

NOTES = [
    "Vectors are those of the experiment `geometry`: each side alone, before attention, at unit "
    "length. t-SNE runs once for each model, on its sample of images and texts together; both "
    "figures show that run, of the first seed.",
    "t-SNE keeps neighbours, not distances: how wide a cloud is, and how far apart two points of "
    "it lie, cannot be compared between two panels. The numbers are in `geometry`.",
]


def experiment(study: Study, settings: dict[str, Any]) -> Result:
    """Pictures of the first seed of each model.

    Args:
        study: of at least one model.
        settings: `models`, by default the first two; `items`, images sampled, each with one caption
            (500); `pairs`, images of these that come with all captions and are shown in colours
            (5, at most 6); `perplexity` (30); `sample_seed` (0); `image`, as of `geometry`.

    Raises:
        ImportError: no scikit-learn.
        ValueError: more pairs than colours or items; fewer items than t-SNE needs.
    """
    pairs, items = settings.get("pairs", 5), settings.get("items", 500)
    if not 1 <= pairs <= min(6, items):
        raise ValueError(f"pairs must be 1 to 6, and at most the {items} items, got {pairs}")
    options = {
        "pairs": pairs,
        "items": items,
        "perplexity": settings.get("perplexity", 30),
        "sample_seed": settings.get("sample_seed", 0),
        "of": settings.get("image", "regions"),
    }
    seed = study.seeds[0]
    cells = cells_of(study, "tsne", settings, [seed], partial(measure, **options))
    found: dict[str, Cell] = {model: cell for model, (cell,) in cells.items()}
    width = 4.0 * len(found)
    save(partial(_draw_pairs, found, pairs), study.path("tsne", "pairs.svg"), (width, 4.4))
    save(partial(_draw_spread, found), study.path("tsne", "spread.png"), (width, 4.4))
    rows = [
        {
            "model": model,
            "seed": str(seed),
            "images": len(cell["images"]),
            "texts": len(cell["texts"]),
            "KL divergence": f"{cell['kl_divergence']:.3f}",
        }
        for model, cell in found.items()
    ]
    figures = [
        Figure(
            "pairs.svg",
            f"{pairs} images (+) and their captions (o), one colour each, among the others (grey)",
        ),
        Figure("spread.png", "All sampled images (+) and texts (o)"),
    ]
    caption = f"t-SNE, perplexity {options['perplexity']}, as scikit-learn fits it"
    return Result("t-SNE of images and texts", [Table(caption, rows)], figures, NOTES)


def measure(
    trained: Trained,
    pairs: int,
    items: int,
    perplexity: float = 30.0,
    sample_seed: int = 0,
    of: str = "regions",
) -> Cell:
    """Places in the plane of `items` images, all if there are no more, and their texts."""
    images, texts = sample(trained.caption_to_image, len(trained.rows), pairs, items, sample_seed)
    rows = [trained.rows[row] for row in images.tolist()]
    encoder = trained.evaluator
    v = image_embeddings(encoder.encode_images(rows), of)
    w = text_embeddings(encoder.encode_texts([trained.texts[text] for text in texts.tolist()]))
    places, divergence = plane(torch.cat([v, w]).numpy(), perplexity, sample_seed)
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
    """Rows of images, the first `pairs` of them with all their captions; texts, one for each other.

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
    """t-SNE (N, 2) of vectors (N, D), and its Kullback-Leibler divergence.

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


def _draw_pairs(found: dict[str, Cell], pairs: int, axes: Axes) -> None:
    for place, (model, cell) in _panels(found, axes):
        v, w, owners = (np.array(cell[name]) for name in ("images", "texts", "owners"))
        _points(place, np.concatenate([v, w]), s=3, color="grey", alpha=0.5, linewidths=0)
        for image in range(pairs):
            own, colour = w[owners == image], f"C{image}"
            _points(place, own, s=26, marker="o", facecolors="none", edgecolors=colour)
            _points(place, v[image], s=90, marker="+", color=colour, linewidths=2)
        place.set_title(model)


def _draw_spread(found: dict[str, Cell], axes: Axes) -> None:
    for place, (model, cell) in _panels(found, axes):
        v, w = np.array(cell["images"]), np.array(cell["texts"])
        _points(place, v, s=22, marker="+", linewidths=1, label="images")
        _points(place, w, s=9, alpha=0.7, linewidths=0, label="texts")
        place.set_title(model)
    legend(place)


def _points(axes: Axes, where: np.ndarray, **style: Any) -> None:
    axes.scatter(where[..., 0], where[..., 1], **style)


def _panels(found: dict[str, Cell], axes: Axes) -> list[tuple[Axes, tuple[str, Cell]]]:
    """A bare square for each model: the axes of t-SNE mean nothing."""
    places = panels(axes, len(found))
    for place in places:
        place.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        place.spines[:].set_visible(True)
    return list(zip(places, found.items(), strict=True))
