"""The asymmetry benchmark: does a scorer mind what a caption adds, leaves out, or tells more of?

The claim of the papers' Figure 1, which they never measure. It needs, for an image, a caption and
three variants of it: `negative` (one absent object added: Asymmetry-I), `richer` (one present
object added: Asymmetry-II) and `shorter` (one object less: Asymmetry-III).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

VARIANTS = ("negative", "richer", "shorter")


def asymmetry_benchmark(evaluator: Any, rows: Any, sim: Tensor, index: np.ndarray) -> dict:
    """Accuracies and recalls in percent over the rows.

    Args:
        evaluator: scores single pairs (`pairs`).
        rows: with `captions`, `negative`, `richer`, `shorter`; variants are of caption 0.
        sim: (I, T) scores of all images and captions.
        index: (T,) image of each caption, captions of an image in their order.

    Returns:
        * `asym1_caption`: share of images whose caption outscores its negative,
        * `asym1_richer`: share whose richer caption outscores the negative, which is the same
          sentence but for one noun; chance 50, and length tells nothing,
        * `asym1_shorter`: share whose shorter caption outscores the negative,
        * `richer_r1`, `shorter_r1`: share of images that are first among all images for their
          richer, shorter caption (ties count against),
        * `caption_r1`: the same of caption 0 itself.
    """
    first = np.unique(index, return_index=True)[1]
    caption = sim[np.arange(len(rows)), first]
    score = {k: evaluator.pairs(rows, rows[k][:]) for k in VARIANTS}
    result = {
        "asym1_caption": _share(caption > score["negative"]),
        "asym1_richer": _share(score["richer"] > score["negative"]),
        "asym1_shorter": _share(score["shorter"] > score["negative"]),
        "caption_r1": _first(sim[:, first]),
    }
    for kind in ("richer", "shorter"):
        result[f"{kind}_r1"] = _first(evaluator.score(rows, rows[kind][:]))
    return result


def _share(hits: Tensor) -> float:
    return 100 * hits.float().mean().item()


def _first(square: Tensor) -> float:
    """Share of texts (columns) whose own image (same number) beats every other, in percent."""
    own = square.diagonal()
    return _share((square >= own).sum(0) == 1)
