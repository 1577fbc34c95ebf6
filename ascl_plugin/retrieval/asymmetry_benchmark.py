"""The asymmetry benchmark: how scores react to what a caption adds, leaves out or gets wrong.

It measures the claim of the papers' Figure 1. `asymmetry_benchmark` needs three variants of a
caption, which scenes have: `negative` (an absent object added: Asymmetry-I), `richer` (a present
one added: Asymmetry-II) and `shorter` (one object less: Asymmetry-III). `variant_benchmark` takes
those of `asymmetry.captions.variants`, of any captions. Beside each accuracy stands `blind`, that
of the same scorer with the mean image in place of the image (`retrieval.blind`): as much as the
wording alone gives away. `balanced_benchmark`, of `asymmetry.captions.balanced`, cannot be won
blind. `retrieval.contest_benchmark` takes contests from files.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.asymmetry.captions.balanced import BalancedPair
from ascl_plugin.asymmetry.captions.variants import AMOUNTS, TRUE_EDITS, Variants
from ascl_plugin.interfaces import AnyRows, Rows, SplitEvaluator
from ascl_plugin.metrics.recall import text_ranks
from ascl_plugin.retrieval.blind import blind_scores

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
        * `asym1_caption_blind`, `asym1_richer_blind`, `asym1_shorter_blind`: the same with the
          mean image in place of each,
        * `caption_r1`, `richer_r1`, `shorter_r1`: share of images that are first among all images
          for their caption 0, richer, shorter caption (ties count against).
    """
    first = np.unique(index, return_index=True)[1]
    caption = sim[np.arange(len(rows)), first]
    score = {k: evaluator.pairs(rows, rows[k][:]) for k in VARIANTS}
    score["caption"] = caption
    square = {k: evaluator.score(rows, rows[k][:]) for k in ("richer", "shorter")}
    texts = {"caption": [own[0] for own in rows["captions"]], **{k: rows[k][:] for k in VARIANTS}}
    without = blind_scores(evaluator, rows, list(chain.from_iterable(texts.values())))
    blind = dict(zip(texts, without.split(len(rows)), strict=True))
    true = ("caption", "richer", "shorter")
    return {
        **{f"asym1_{k}": _percent(score[k] > score["negative"]) for k in true},
        **{f"asym1_{k}_blind": _percent(blind[k] > blind["negative"]) for k in true},
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
          negative (ties count against), and `blind`, that of the mean image. Two more kinds compare
          other true texts with `add`: `add, richer` (as many phrases), and `add, shorter`.
        * `positives`: kind -> `rank_metrics` of the image among all.
        * `amounts`: kind of edit -> `changes` with the number of edits.
    """
    asked: dict[tuple[int, str], None] = {}
    contests: dict[str, list[tuple[int, str, str]]] = {name: [] for name in CONTESTS}
    for one in variants:
        of_amounts = chain.from_iterable(one.amounts.values())
        for text in (*one.negatives.values(), *one.positives.values(), *of_amounts):
            asked[one.row, text] = None
        for name, (true, false) in CONTESTS.items():
            if true in one.positives and false in one.negatives:
                contests[name].append((one.row, one.positives[true], one.negatives[false]))
    score = _scores(evaluator, rows, list(asked))
    blind = _blind(
        evaluator, rows, [t for some in contests.values() for one in some for t in one[1:]]
    )
    series: dict[str, list[list[float]]] = {edit: [] for edit in AMOUNTS}
    for one in variants:
        for edit, texts in one.amounts.items():
            series[edit].append([score[one.row, text] for text in texts])
    return {
        "negatives": {
            name: accuracy(
                [score[row, right] > score[row, wrong] for row, right, wrong in some],
                [blind[right] > blind[wrong] for _, right, wrong in some],
            )
            for name, some in contests.items()
            if some
        },
        "positives": _positives(evaluator, rows, variants),
        "amounts": {edit: changes(scores) for edit, scores in series.items() if scores},
    }


def balanced_benchmark(
    evaluator: SplitEvaluator, rows: AnyRows, pairs: Sequence[BalancedPair]
) -> dict[str, dict[str, float]]:
    """Return how often a scorer gives each of two images the text that is truer of it.

    Args:
        evaluator: scores rows and texts.
        rows: all images.
        pairs: balanced half-truths of them.

    Returns:
        kind -> in percent over `count` sets of two texts and two images:

        * `pairs`: images that prefer their own text. A tie counts half, so that a scorer that does
          not look at the image gets exactly 50: it prefers the same text for both images.
        * `groups`: sets in which both images prefer their own; a tie counts against. Such a scorer
          gets 0. It is Winoground's text score.
        * `images`: sets in which each text scores higher with its own image (Winoground's image
          score); `all`: sets that count in both (its group score). Ties count against.
        * `blind`, `blind_groups`: pairs and groups with the mean image in place of both.
    """
    asked = dict.fromkeys(
        (row, text) for one in pairs for row in (one.a, one.b) for text in (one.with_p, one.with_q)
    )
    score = _scores(evaluator, rows, list(asked))
    blind = _blind(evaluator, rows, [text for _, text in asked])
    result: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys(one.kind for one in pairs):
        some = [one for one in pairs if one.kind == kind]
        gains = [
            (
                score[o.a, o.with_p] - score[o.a, o.with_q],
                score[o.b, o.with_q] - score[o.b, o.with_p],
            )
            for o in some
        ]
        across = [
            score[o.a, o.with_p] > score[o.b, o.with_p]
            and score[o.b, o.with_q] > score[o.a, o.with_q]
            for o in some
        ]
        both = [min(gain) > 0 and won for gain, won in zip(gains, across, strict=True)]
        without = [blind[one.with_p] - blind[one.with_q] for one in some]
        result[kind] = {
            **_balanced(np.array(gains)),
            "images": 100 * float(np.mean(across)),
            "all": 100 * float(np.mean(both)),
            **{
                {"pairs": "blind", "groups": "blind_groups"}[name]: value
                for name, value in _balanced(np.array([(gain, -gain) for gain in without])).items()
            },
            "count": len(some),
        }
    return result


def _balanced(gains: np.ndarray) -> dict[str, float]:
    """Return `pairs` and `groups` in percent of (N, 2) scores of the own text minus the other."""
    right = (gains > 0) + 0.5 * (gains == 0)
    return {"pairs": 100 * float(right.mean()), "groups": 100 * float((gains > 0).all(1).mean())}


def _scores(
    evaluator: SplitEvaluator, rows: AnyRows, asked: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], float]:
    """Return the score of each (row, text)."""
    used = sorted({row for row, _ in asked})
    place = {row: number for number, row in enumerate(used)}
    texts, index = [text for _, text in asked], [place[row] for row, _ in asked]
    found = evaluator.pairs([rows[row] for row in used], texts, index)
    return dict(zip(asked, found.tolist(), strict=True))


def _blind(evaluator: SplitEvaluator, rows: AnyRows, texts: Sequence[str]) -> dict[str, float]:
    """Return the score of each text with the mean image."""
    if not texts:
        return {}
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, blind_scores(evaluator, rows, distinct).tolist(), strict=True))


def accuracy(hits: Sequence[bool], blind: Sequence[bool]) -> dict[str, float]:
    """Return `accuracy` and `blind` in percent, and `texts`, the number of hits and misses."""
    return {
        "accuracy": 100 * float(np.mean(hits)),
        "blind": 100 * float(np.mean(blind)),
        "texts": len(hits),
    }


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
