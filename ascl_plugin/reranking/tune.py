"""`tune_rerank`: choose options of `rerank` on a validation split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.metrics.protocols import query_results
from ascl_plugin.metrics.recall import Owners, retrieval_metrics
from ascl_plugin.metrics.statistics import Difference, paired_test
from ascl_plugin.reranking.bidirectional import LookBack, bidirectional, hand_out, look_back
from ascl_plugin.reranking.methods import find_method, rerank
from ascl_plugin.reranking.neighbors import nearest_texts
from ascl_plugin.reranking.options import RerankOptions, array_option, options_of
from ascl_plugin.scores import Array, as_tensor, check_scores

if TYPE_CHECKING:
    from typing_extensions import Unpack

Grids = Mapping[str, Sequence[object]]

GRID: dict[str, Sequence[float | None]] = {
    "k": (10, 20, 50),
    "reverse_k": (None, 20),
    "text_neighbors": (1, 2, 3, 5),
    "mix": (0.0, 0.2, 0.3, 0.4, 0.5, 0.6),
}
"""Options of the bidirectional method; `tune_rerank` tries every combination."""

_RESAMPLES = 2000  # of the bootstrap
_TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2)
GRIDS: dict[str, Grids] = {
    "bidirectional": GRID,
    "inverted_softmax": {"temperature": _TEMPERATURES},
    "dual_softmax": {"temperature": _TEMPERATURES},
    "sinkhorn": {"temperature": _TEMPERATURES, "iterations": (3, 10)},
    "dbnorm": {"temperature": (0.02, 0.05, 0.1), "gallery_temperature": (0.05, 0.5)},
    "csls": {"neighbors": (1, 2, 5, 10, 20, 50)},
    "nnn": {"alpha": (0.25, 0.5, 0.75, 1.0), "neighbors": (1, 4, 16, 64)},
    "dn": {"alpha": (0.25, 0.5, 0.75, 1.0)},
    "mutual_proximity": {"distribution": ("gaussian", "empirical")},
    "local_scaling": {"neighbors": (1, 5, 10, 20), "scaling": ("gaussian", "nicdm")},
    "k_reciprocal": {"k1": (20,), "k2": (1, 6), "initial_weight": (0.3, 0.7)},
}
"""Method -> options and their values, as `tune_rerank` tries them by default.

`qb_norm` and `dbnorm_dynamic` are left out: where the bank is the queries themselves, every query's
first result is a hub, and they are `inverted_softmax` and `dbnorm`.
"""

Grid = Mapping[str, Sequence[object]] | Iterable[Mapping[str, object]]


@dataclass(frozen=True)
class Trial:
    """A set of options and its metrics on the validation split.

    Args:
        options: for ``rerank(sim, **options)``.
        metrics: of `retrieval_metrics`.
        qualifies: True if it loses no more R@1 than allowed, in either direction.
    """

    options: RerankOptions
    metrics: dict[str, float]
    qualifies: bool


@dataclass(frozen=True)
class Tuned:
    """The result of `tune_rerank`; use it by ``rerank(sim_test, **tuned.options)``.

    Args:
        options: of the best trial; ``{"method": "none"}`` if none gains, or if chance may have made
            the gain.
        metrics: with these options, on the validation split; optimistic, since chosen there.
        gain: of the best trial over no re-ranking in the chosen metric, with its 95 % bootstrap
            interval, see `paired_test`; None if no trial gains, or for a median rank.
        best: the trial that `gain` is of, refused or not.
        trials: all trials, the first without re-ranking.
    """

    options: RerankOptions
    metrics: dict[str, float]
    gain: Difference | None
    best: Trial = field(repr=False)
    trials: list[Trial] = field(repr=False)

    @property
    def refused(self) -> bool:
        """True if the best trial gains, but its interval contains zero."""
        return self.gain is not None and self.options != self.best.options


@torch.no_grad()
def tune_rerank(
    sim: Array,
    caption_to_image: Owners,
    grid: Grid | None = None,
    *,
    metric: str = "rsum",
    max_loss: float = 0.1,
    allow_uncertain: bool = False,
    progress: bool = False,
    **fixed: Unpack[RerankOptions],
) -> Tuned:
    """Try methods of `rerank` on a validation split; take what gains most and loses nowhere.

    It uses labels, so the matrix must be of a validation split: options tuned on the test split
    prove nothing. Options that count places (k, reverse_k, text_neighbors) depend on the numbers of
    images and captions; a split of similar size serves best.

    The gain has an interval by bootstrap over the images with their captions. Where it contains
    zero, nothing is chosen. It is the interval of one trial; of many trials the best is lucky, so
    the true gain is likely lower than `gain.value`.

    Args:
        sim: (I, T) similarities of the validation split, as `rerank` takes them.
        caption_to_image: (T,) ints, as `retrieval_metrics` takes them.
        grid: option -> values, to try every combination; or the sets of options to try. None:
            `GRIDS` of all methods, or of `method`, or of those that have all the fixed options.
        metric: a key of `retrieval_metrics` to raise; a rank (``medr``, ``t2i_meanr``) to lower.
        max_loss: loss of R@1, in points, that is allowed in either direction.
        allow_uncertain: choose the best trial also where the interval of its gain contains zero.
        progress: show a bar; needs tqdm (``pip install "ascl-plugin[recipes]"``).
        **fixed: options of `rerank` for every trial, as ``method="csls"`` or ``text_embeddings=``.
            Arrays among them are of the validation split and not part of the result.

    Returns:
        Tuned. Among equally good trials it takes the first; if none qualifies and gains, the
        options are ``{"method": "none"}``.

    Raises:
        TypeError, ValueError: as `rerank` and `retrieval_metrics`; an unknown metric; an empty
            grid; a method without a grid of its own.
        ImportError: progress without tqdm.

    Examples:
        >>> import numpy as np
        >>> from ascl_plugin.reranking import tune_rerank
        >>> sim = np.array([[0.9, 0.8], [0.95, 0.1]])  # text 0 prefers image 1, and is image 1's
        >>> tune_rerank(sim, [1, 0], {"k": [1, 2]}, allow_uncertain=True).options
        {'k': 2}
    """
    if grid is None:
        grid = _default_grid(fixed)
    tries = [cast(RerankOptions, {**fixed, **options}) for options in _combinations(grid)]
    before = retrieval_metrics(sim, caption_to_image)
    if metric not in before:
        raise ValueError(f"tune_rerank: no metric {metric!r}; there are {', '.join(before)}")
    sign = -1 if metric.endswith(("medr", "meanr")) else 1
    reranked = _reranker(sim, tries)
    trials = [Trial({"method": "none"}, before, True)]
    for options in _bar(tries, progress):
        i2t, t2i = reranked(**options)
        metrics = retrieval_metrics(i2t, caption_to_image, t2i=t2i)
        lost = max(before[name] - metrics[name] for name in ("i2t_r1", "t2i_r1"))
        qualifies = lost <= max_loss + 1e-9  # percents are rounded: 20.2 - 20.1 is above 0.1
        trials.append(Trial(_without_arrays(options), metrics, qualifies))
    best = max((t for t in trials if t.qualifies), key=lambda t: sign * t.metrics[metric])
    gain = None
    if best is not trials[0] and not metric.endswith("medr"):
        i2t, t2i = reranked(**tries[next(i for i, t in enumerate(trials) if t is best) - 1])
        pair = query_results(sim, caption_to_image), query_results(i2t, caption_to_image, t2i=t2i)
        gain = paired_test(*pair, resamples=_RESAMPLES)[metric]
    certain = gain is None or not gain.low <= 0 <= gain.high
    chosen = best if certain or allow_uncertain else trials[0]
    return Tuned(chosen.options, chosen.metrics, gain, best, trials)


def _default_grid(fixed: RerankOptions) -> list[Mapping[str, object]]:
    """Return the sets of options of all methods that have the fixed ones."""
    method = fixed.get("method")
    if method is not None and method not in GRIDS:
        raise ValueError(f"tune_rerank: no default grid for method {method!r}; give one")
    tries: list[Mapping[str, object]] = []
    for name in GRIDS if method is None else [str(method)]:
        if fixed.keys() - {"method"} <= options_of(find_method(name)[1]).keys():
            free = {n: values for n, values in GRIDS[name].items() if n not in fixed}
            named = {} if name == "bidirectional" else {"method": name}
            tries += [{**named, **options} for options in _combinations(free)]
    return tries


def _combinations(grid: Grid) -> list[Mapping[str, object]]:
    if isinstance(grid, Mapping):
        grid = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    tries = list(grid)
    if not tries:
        raise ValueError("tune_rerank: the grid is empty")
    return tries


def _reranker(sim: Array, tries: Sequence[RerankOptions]) -> Callable[..., Iterable[Array]]:
    """Return `rerank` of sim; tries that differ in options of `GRID` alone share lists."""
    shared = {"method", "text_embeddings", *GRID}
    embeddings = tries[0].get("text_embeddings")

    def shares(options: RerankOptions) -> bool:
        return (
            options.keys() <= shared
            and options.get("method", "bidirectional") == "bidirectional"
            and options.get("text_embeddings") is embeddings
        )

    alike = [options for options in tries if shares(options)]
    if not alike:
        return partial(rerank, sim)
    scores = as_tensor(sim, "sim")
    check_scores(scores, "sim")
    for options in alike:
        rerank(scores[:1, :1], **_without_arrays(options))  # refuses values out of bounds
    if embeddings is not None:
        embeddings = array_option("text_embeddings", embeddings, scores)
    complete = [_complete(options) for options in alike]
    k = max(options["k"] for options in complete)
    most = min(max(options["text_neighbors"] for options in complete), scores.shape[1])
    neighbors, texts = nearest_texts(scores, most, embeddings), look_back(scores, k)

    @cache
    def images(count: int) -> LookBack:
        return look_back(scores.T, k, neighbors[:, :count])

    def from_lists(**options: Unpack[RerankOptions]) -> Iterable[Array]:
        if not shares(options):
            return rerank(sim, **options)
        chosen = _complete(options)
        found = (texts, images(chosen["text_neighbors"]))
        first_texts, first_images = (lists.first(chosen["k"]) for lists in found)
        return hand_out(scores, first_texts, first_images, chosen["reverse_k"], chosen["mix"])

    return from_lists


def _complete(options: RerankOptions) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    return {**options_of(bidirectional), **given}


def _without_arrays(options: RerankOptions) -> RerankOptions:
    kept = {n: v for n, v in options.items() if not isinstance(v, np.ndarray | Tensor)}
    return cast(RerankOptions, kept)


def _bar(tries: Sequence[RerankOptions], progress: bool) -> Iterable[RerankOptions]:
    if not progress:
        return tries
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            'a progress bar needs tqdm: pip install "ascl-plugin[recipes]"'
        ) from error
    return tqdm(tries, desc="rerank options")
