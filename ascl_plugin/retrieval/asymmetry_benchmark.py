"""The asymmetry benchmark: how scores react to what a caption adds, leaves out or gets wrong.

It measures the claim of the papers' Figure 1. `asymmetry_benchmark` needs three variants of a
caption, which scenes have: `negative` (an absent object added: Asymmetry-I), `richer` (a present
one added: Asymmetry-II) and `shorter` (one object less: Asymmetry-III). `variant_benchmark` takes
those of `asymmetry.captions.variants`, of any captions; `sugarcrepe_benchmark` takes pairs from
files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.asymmetry.captions.variants import AMOUNTS, TRUE_EDITS, Variants
from ascl_plugin.interfaces import Row, Rows, SplitEvaluator
from ascl_plugin.metrics.recall import text_ranks

VARIANTS = ("negative", "richer", "shorter")

# name of an accuracy -> the positive and the negative of `Variants` that it compares
CONTESTS = {
    "add": ("caption", "add"),
    "replace": ("caption", "replace"),
    "swap": ("caption", "swap"),
    "add, richer": ("phrase added", "add"),
    "add, shorter": ("phrase removed", "add"),
}


def asymmetry_benchmark(
    evaluator: SplitEvaluator, rows: Rows, sim: Tensor, index: np.ndarray
) -> dict[str, float]:
    """Return accuracies and recalls in percent over the rows.

    Args:
        evaluator: scores rows and texts.
        rows: with `captions`, `negative`, `richer`, `shorter`; variants are of caption 0.
        sim: (I, T) scores of all images and captions.
        index: (T,) image of each caption, captions of an image in their order.

    Returns:
        * `asym1_caption`: share of images whose caption outscores its negative,
        * `asym1_richer`: share whose richer caption outscores the negative; the two differ in one
          noun, so that chance is 50 and length does not help,
        * `asym1_shorter`: share whose shorter caption outscores the negative,
        * `caption_r1`, `richer_r1`, `shorter_r1`: share of images that are first among all images
          for their caption 0, richer, shorter caption (ties count against).
    """
    first = np.unique(index, return_index=True)[1]
    caption = sim[np.arange(len(rows)), first]
    score = {k: evaluator.pairs(rows, rows[k][:]) for k in VARIANTS}
    square = {k: evaluator.score(rows, rows[k][:]) for k in ("richer", "shorter")}
    return {
        "asym1_caption": _percent(caption > score["negative"]),
        "asym1_richer": _percent(score["richer"] > score["negative"]),
        "asym1_shorter": _percent(score["shorter"] > score["negative"]),
        **{
            f"{kind}_r1": _percent(text_ranks(scores, torch.arange(len(rows))) == 1)
            for kind, scores in {"caption": sim[:, first], **square}.items()
        },
    }


def variant_benchmark(
    evaluator: SplitEvaluator, rows: Rows, variants: Sequence[Variants]
) -> dict[str, Any]:
    """Return how a scorer ranks variants of captions.

    Args:
        evaluator: scores rows and texts.
        rows: all images, I.
        variants: variants of captions of some of them.

    Returns:
        * `negatives`: kind -> `accuracy`, the percentage of `texts` captions that outscore their
          negative (chance 50, ties count against). Two more kinds compare other true texts with
          `add`, whose length gives it away: `add, richer` (as many phrases), and `add, shorter`.
        * `positives`: kind -> `rank_metrics` of the image among all.
        * `amounts`: kind of edit -> `changes` with the number of edits.
    """
    asked: dict[tuple[int, str], int] = {}
    for one in variants:
        of_amounts = [text for texts in one.amounts.values() for text in texts]
        for text in (*one.negatives.values(), *one.positives.values(), *of_amounts):
            asked.setdefault((one.row, text), len(asked))
    used = sorted({one.row for one in variants})
    place = {row: number for number, row in enumerate(used)}
    found = evaluator.pairs(
        [rows[row] for row in used], [text for _, text in asked], [place[row] for row, _ in asked]
    )

    def score(one: Variants, text: str) -> float:
        return found[asked[one.row, text]].item()

    wins: dict[str, list[bool]] = {name: [] for name in CONTESTS}
    series: dict[str, list[list[float]]] = {edit: [] for edit in AMOUNTS}
    for one in variants:
        for name, (true, false) in CONTESTS.items():
            if true in one.positives and false in one.negatives:
                right, wrong = one.positives[true], one.negatives[false]
                wins[name].append(score(one, right) > score(one, wrong))
        for edit, texts in one.amounts.items():
            series[edit].append([score(one, text) for text in texts])
    return {
        "negatives": {name: accuracy(hits) for name, hits in wins.items() if hits},
        "positives": _positives(evaluator, rows, variants),
        "amounts": {edit: changes(scores) for edit, scores in series.items() if scores},
    }


def sugarcrepe_benchmark(
    evaluator: SplitEvaluator, pairs: Mapping[str, Sequence[Row]]
) -> dict[str, dict[str, float]]:
    """Return the `accuracy` of captions against negatives, by kind, of `read_sugarcrepe`'s rows."""
    result = {}
    for kind, rows in pairs.items():
        images = {row["image_id"]: row for row in rows}
        place = {image_id: number for number, image_id in enumerate(images)}
        texts = [row[name] for name in ("caption", "negative_caption") for row in rows]
        index = [place[row["image_id"]] for row in rows]
        right, wrong = evaluator.pairs(list(images.values()), texts, index * 2).chunk(2)
        result[kind] = accuracy((right > wrong).tolist())
    return result


def accuracy(hits: Sequence[bool]) -> dict[str, float]:
    """Return `accuracy` in percent, and `texts`, the number of hits and misses."""
    return {"accuracy": 100 * float(np.mean(hits)), "texts": len(hits)}


def rank_metrics(sim: Tensor, image: Sequence[int]) -> dict[str, float]:
    """Return recalls in percent, median and mean rank of each text's image; ties count against.

    Args:
        sim: (I, T) scores.
        image: (T,) row of each text's image.
    """
    ranks = text_ranks(sim, torch.as_tensor(image))
    return {f"r{k}": _percent(ranks <= k) for k in (1, 5, 10)} | {
        "medr": float(np.median(ranks.numpy())),
        "meanr": ranks.double().mean().item(),
        "texts": len(ranks),
    }


def changes(scores: Sequence[Sequence[float]]) -> list[dict[str, float | None]]:
    """Return how scores change with the number of edits of a caption.

    Args:
        scores: for each caption its score, then its scores after one edit, two, ...

    Returns:
        For each number of edits from 0: `amount`; `texts` with so many; `mean` of the score minus
        the caption's own, and its `deviation` over texts (None for a single one); `falls`, the
        percentage that scores less than the caption.
    """
    result: list[dict[str, float | None]] = []
    for amount in range(max(map(len, scores), default=0)):
        change = np.array([own[amount] - own[0] for own in scores if len(own) > amount])
        result.append(
            {
                "amount": amount,
                "texts": len(change),
                "mean": float(change.mean()),
                "deviation": float(change.std(ddof=1)) if len(change) > 1 else None,
                "falls": 100 * float((change < 0).mean()),
            }
        )
    return result


def _positives(
    evaluator: SplitEvaluator, rows: Rows, variants: Sequence[Variants]
) -> dict[str, dict[str, float]]:
    with_kind = {k: [one for one in variants if k in one.positives] for k in TRUE_EDITS}
    sim = evaluator.score(rows, [one.positives[k] for k, of in with_kind.items() for one in of])
    parts = sim.split([len(of) for of in with_kind.values()], dim=1)
    return {
        kind: rank_metrics(part, [one.row for one in of])
        for (kind, of), part in zip(with_kind.items(), parts, strict=True)
        if of
    }


def _percent(hits: Tensor) -> float:
    return 100 * hits.float().mean().item()
