"""`tune_rerank`: the options of `rerank` that gain most on a validation split and lose nowhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.metrics.recall import Owners, retrieval_metrics
from ascl_plugin.reranking.bidirectional import LookBack, bidirectional, hand_out, look_back
from ascl_plugin.reranking.methods import rerank
from ascl_plugin.reranking.neighbors import nearest_texts
from ascl_plugin.reranking.options import array_option
from ascl_plugin.scores import Array, as_tensor, check_scores

GRID: dict[str, Sequence[Any]] = {
    "k": (10, 20, 50),
    "reverse_k": (None, 20),
    "text_neighbors": (1, 2, 3, 5),
    "mix": (0.0, 0.2, 0.3, 0.4, 0.5, 0.6),
}
"""What `tune_rerank` tries of the bidirectional method, every combination."""

Grid = Mapping[str, Sequence[Any]] | Iterable[Mapping[str, Any]]

_DEFAULTS: dict[str, Any] = {
    name: parameter.default
    for function in (bidirectional, rerank)
    for name, parameter in inspect.signature(function).parameters.items()
    if name in GRID
}


@dataclass(frozen=True)
class Trial:
    """One set of options, and what it gave on the validation split.

    Args:
        options: for ``rerank(sim, **options)``.
        metrics: of `retrieval_metrics`.
        qualifies: lost no more R@1 than allowed, in either direction.
    """

    options: dict[str, Any]
    metrics: dict[str, float]
    qualifies: bool


@dataclass(frozen=True)
class Tuned:
    """What `tune_rerank` found; ``rerank(sim_test, **tuned.options)``.

    Args:
        options: of the best trial; ``{"method": "none"}`` if none gains.
        metrics: of the best trial, on the validation split: optimistic, having been chosen there.
        trials: all that were tried, the first without re-ranking.
    """

    options: dict[str, Any]
    metrics: dict[str, float]
    trials: list[Trial] = field(repr=False)


@torch.no_grad()
def tune_rerank(
    sim: Array,
    caption_to_image: Owners,
    grid: Grid | None = None,
    *,
    metric: str = "rsum",
    max_loss: float = 0.1,
    progress: bool = False,
    **fixed: Any,
) -> Tuned:
    """Try options of `rerank` on a validation split; take those that gain most and lose nowhere.

    Labels are used here and only here, so the matrix must be of a validation split: what is tuned
    on the test split proves nothing. Options that count places (k, reverse_k, text_neighbors)
    depend on how many images and captions there are; a split of like size serves best.

    Args:
        sim: (I, T) similarities of the validation split, as `rerank` takes them.
        caption_to_image: (T,) ints, as `retrieval_metrics` takes them.
        grid: option -> values, every combination is tried; or the dicts of options to try. None:
            `GRID`, for the bidirectional method.
        metric: a key of `retrieval_metrics` to raise; a rank (``medr``, ``t2i_meanr``) to lower.
        max_loss: of R@1, in points, allowed in either direction against no re-ranking.
        progress: show a bar; needs tqdm (``pip install "ascl-plugin[recipes]"``).
        **fixed: options of every trial, as ``method="csls"`` or ``text_embeddings=``. Arrays among
            them are of the validation split and do not come back: the test split has its own.

    Returns:
        Tuned. Of trials that are equally good it takes the first; with nothing that qualifies and
        beats no re-ranking, the options are ``{"method": "none"}``.

    Raises:
        TypeError, ValueError: as `rerank` and `retrieval_metrics`; an unknown metric; an empty
            grid; no grid for a method that has no default one.
        ImportError: progress without tqdm.

    Example:
        >>> import numpy as np
        >>> from ascl_plugin.reranking import tune_rerank
        >>> sim = np.array([[0.9, 0.8], [0.95, 0.1]])  # text 0 prefers image 1, and is image 1's
        >>> tune_rerank(sim, [1, 0], {"k": [1, 2]}).options
        {'k': 2}
    """
    if grid is None:
        if fixed.get("method", "bidirectional") != "bidirectional":
            raise ValueError(
                f"tune_rerank: no default grid for method {fixed['method']!r}; give one"
            )
        grid = {name: values for name, values in GRID.items() if name not in fixed}
    tries = _combinations(grid)
    before = retrieval_metrics(sim, caption_to_image)
    if metric not in before:
        raise ValueError(f"tune_rerank: no metric {metric!r}; there are {', '.join(before)}")
    sign = -1 if metric.endswith(("medr", "meanr")) else 1
    reranked = _reranker(sim, tries, fixed)
    trials = [Trial({"method": "none"}, before, True)]
    for options in _bar(tries, progress):
        i2t, t2i = reranked(**options)
        metrics = retrieval_metrics(i2t, caption_to_image, t2i=t2i)
        lost = max(before[name] - metrics[name] for name in ("i2t_r1", "t2i_r1"))
        qualifies = lost <= max_loss + 1e-9  # percents are rounded: 20.2 - 20.1 is above 0.1
        trials.append(Trial(_without_arrays(fixed | options), metrics, qualifies))
    best = max((t for t in trials if t.qualifies), key=lambda t: sign * t.metrics[metric])
    return Tuned(best.options, best.metrics, trials)


def _combinations(grid: Grid) -> list[dict[str, Any]]:
    if isinstance(grid, Mapping):
        tries = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    else:
        tries = [dict(options) for options in grid]
    if not tries:
        raise ValueError("tune_rerank: the grid is empty")
    return tries


def _reranker(
    sim: Array, tries: list[dict[str, Any]], fixed: dict[str, Any]
) -> Callable[..., Iterable[Array]]:
    """`rerank` of sim with fixed options; where only options of `GRID` differ, lists are shared."""
    embeddings = fixed.get("text_embeddings")
    settled = {n: v for n, v in fixed.items() if n not in ("method", "text_embeddings")}
    names = set(settled).union(*tries)
    if fixed.get("method", "bidirectional") != "bidirectional" or not names <= set(GRID):
        return partial(rerank, sim, **fixed)
    scores = as_tensor(sim, "sim")
    check_scores(scores, "sim")
    for options in tries:
        rerank(scores[:1, :1], **settled | options)  # refuses what is out of bounds
    if embeddings is not None:
        embeddings = array_option("text_embeddings", embeddings, scores)
    settled = _DEFAULTS | settled
    return partial(_Lists(scores, [settled | t for t in tries], embeddings), **settled)


class _Lists:
    """Bidirectional re-ranking for many options: the longest lists and most neighbours serve all.

    Args:
        scores: (I, T).
        tries: every set of options that will be asked for, complete.
        embeddings: (T, E) or None.
    """

    def __init__(
        self, scores: Tensor, tries: list[dict[str, Any]], embeddings: Tensor | None
    ) -> None:
        self.scores = scores
        self.k = max(options["k"] for options in tries)
        count = min(max(options["text_neighbors"] for options in tries), scores.shape[1])
        self.neighbors = nearest_texts(scores, count, embeddings)
        self.texts = look_back(scores, self.k)
        self.images: dict[int, LookBack] = {}

    def __call__(
        self, k: int, reverse_k: int | None, text_neighbors: int, mix: float
    ) -> tuple[Tensor, Tensor]:
        """As `bidirectional`."""
        if text_neighbors not in self.images:
            near = self.neighbors[:, :text_neighbors]
            self.images[text_neighbors] = look_back(self.scores.T, self.k, near)
        texts, images = self.texts.first(k), self.images[text_neighbors].first(k)
        return hand_out(self.scores, texts, images, reverse_k, mix)


def _without_arrays(options: dict[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in options.items() if not isinstance(v, np.ndarray | Tensor)}


def _bar(tries: list[dict[str, Any]], progress: bool) -> Iterable[dict[str, Any]]:
    if not progress:
        return tries
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            'a progress bar needs tqdm: pip install "ascl-plugin[recipes]"'
        ) from error
    return tqdm(tries, desc="rerank options")
