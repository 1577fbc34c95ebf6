"""The asymmetry benchmark: does a scorer mind what a caption adds, leaves out, or tells more of?

The claim of the papers' Figure 1, which they never measure. `asymmetry_benchmark` needs, for an
image, a caption and three variants of it, as scenes bring them: `negative` (one absent object
added: Asymmetry-I), `richer` (one present object added: Asymmetry-II) and `shorter` (one object
less: Asymmetry-III). `variant_benchmark` takes those of `asymmetry.captions.variants`, of any
captions, `sugarcrepe_benchmark` pairs from files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.asymmetry.captions.variants import AMOUNTS, POSITIVES, Variants
from ascl_plugin.metrics.recall import text_ranks

VARIANTS = ("negative", "richer", "shorter")

# name of an accuracy -> the positive and the negative of `Variants` it holds against each other
CONTESTS = {
    "add": ("caption", "add"),
    "replace": ("caption", "replace"),
    "swap": ("caption", "swap"),
    "add, richer": ("phrase added", "add"),
    "add, shorter": ("phrase removed", "add"),
}


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


def variant_benchmark(evaluator: Any, rows: Any, variants: Sequence[Variants]) -> dict[str, Any]:
    """What a scorer makes of variants of captions.

    Args:
        evaluator: scores single pairs (`pairs`) and matrices (`score`).
        rows: all images, I.
        variants: of captions of some of them.

    Returns:
        * `negatives`: kind -> `accuracy` (percent of `texts` captions that outscore their
          negative; chance 50, a tie counts against). Two kinds more hold other true texts against
          `add`, whose length tells a caption from it: `add, richer`, in which the other sentence
          has as many phrases, and `add, shorter`.
        * `positives`: kind -> `rank_metrics` of the image among all.
        * `amounts`: what is done -> `changes` with how much of it is done.
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
    series: dict[str, list[list[float]]] = {done: [] for done in AMOUNTS}
    for one in variants:
        for name, (true, false) in CONTESTS.items():
            if true in one.positives and false in one.negatives:
                right, wrong = one.positives[true], one.negatives[false]
                wins[name].append(score(one, right) > score(one, wrong))
        for done, texts in one.amounts.items():
            series[done].append([score(one, text) for text in texts])
    return {
        "negatives": {name: accuracy(hits) for name, hits in wins.items() if hits},
        "positives": _positives(evaluator, rows, variants),
        "amounts": {done: changes(scores) for done, scores in series.items() if scores},
    }


def sugarcrepe_benchmark(
    evaluator: Any, pairs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, dict[str, float]]:
    """`accuracy` by kind of caption against negative caption, of rows of `read_sugarcrepe`."""
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
    """`accuracy` in percent and `texts`, the number of them."""
    return {"accuracy": 100 * float(np.mean(hits)), "texts": len(hits)}


def rank_metrics(sim: Tensor, image: Sequence[int]) -> dict[str, float]:
    """Recalls in percent, median and mean rank of each text's image; ties count against.

    Args:
        sim: (I, T).
        image: (T,) row of each text's image.
    """
    ranks = text_ranks(sim, torch.as_tensor(image)).numpy()
    result = {f"r{k}": 100 * float((ranks <= k).mean()) for k in (1, 5, 10)}
    return result | {
        "medr": float(np.median(ranks)),
        "meanr": float(ranks.mean()),
        "texts": len(ranks),
    }


def changes(scores: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """How scores change with how much is done to a caption, against the caption's own score.

    Args:
        scores: for each caption its own score, then that with it done once, twice, ..., as often
            as could be done.

    Returns:
        For each amount from 0: `amount`; `texts` that have it; `mean` of score minus own score and
        its `deviation` over texts (None of a single one); `falls`, the share in percent that
        scores less than the caption.
    """
    result = []
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


def _positives(evaluator: Any, rows: Any, variants: Sequence[Variants]) -> dict[str, Any]:
    with_kind = {k: [one for one in variants if k in one.positives] for k in POSITIVES}
    sim = evaluator.score(rows, [one.positives[k] for k, of in with_kind.items() for one in of])
    parts = sim.split([len(of) for of in with_kind.values()], dim=1)
    return {
        kind: rank_metrics(part, [one.row for one in of])
        for (kind, of), part in zip(with_kind.items(), parts, strict=True)
        if of
    }


def _share(hits: Tensor) -> float:
    return 100 * hits.float().mean().item()


def _first(square: Tensor) -> float:
    """Share of texts (columns) whose own image (same number) beats every other, in percent."""
    own = square.diagonal()
    return _share((square >= own).sum(0) == 1)
