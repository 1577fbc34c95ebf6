"""Contests of texts from files: figures of any scorer on `data.contests.read_contests`' rows.

An entry is an image, texts that are true of it and texts that are false. Three figures stand side
by side, because a scorer that was trained on edited texts can tell them by their wording alone:

- `accuracy`: every true text outscores every false one. The published figure of SugarCrepe, ARO,
  NegBench (multiple choice), SugarCrepe++ (both texts above the false one: ITT) and of the
  half-truths, where the text is to outscore itself plus a false detail.
- `blind`: the same with the mean image in place of the image.
- `balanced`: the same texts are put to the image and to another one of the kind; the lowest true
  score less the highest false one must be higher with the own image.

Entries with two images, Winoground's, are balanced sets themselves: see `twin_pairs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.asymmetry.captions.balanced import BalancedPair
from ascl_plugin.interfaces import Row, SplitEvaluator
from ascl_plugin.retrieval.asymmetry_benchmark import accuracy
from ascl_plugin.retrieval.blind import blind_scores

BLOCK = 1000  # entries scored at once
GALLERY = 2000  # images that the mean image is of, at most


def contest_benchmark(
    evaluator: SplitEvaluator, kinds: Mapping[str, Sequence[Row]]
) -> dict[str, dict[str, float]]:
    """Return figures of a scorer by kind.

    Args:
        evaluator: scores rows and texts.
        kinds: kind -> rows of `image_id`, `image`, `true` and `false` (lists of texts) and, if
            there is one, `richer`, a true text that says more than the first true one.

    Returns:
        Kind -> in percent over `texts` entries: `accuracy` and `blind`, where a tie counts against;
        `balanced`, where a tie counts half, so that a scorer that does not look at the image has
        exactly 50 (left out of kinds of a single image); `ordered`, the share of entries with a
        richer text in which that scores above the first true one, and this above all false ones.
    """
    every = [row for rows in kinds.values() for row in rows]
    images = list({row["image_id"]: row for row in every}.values())
    drawn = np.random.default_rng(0).permutation(len(images))[:GALLERY]
    told = list(dict.fromkeys(text for row in every for text in _texts(row)))
    without = blind_scores(evaluator, [images[i] for i in sorted(drawn)], told)
    blind = dict(zip(told, without.tolist(), strict=True))
    found = {}
    for kind, rows in kinds.items():
        figures = [_scored(evaluator, rows[i : i + BLOCK]) for i in range(0, len(rows), BLOCK)]
        own, gains, order = (np.concatenate(parts) for parts in zip(*figures, strict=True))
        hits = [_margin(torch.tensor([blind[t] for t in _texts(row)]), row) > 0 for row in rows]
        found[kind] = accuracy((own > 0).tolist(), hits)
        if not np.isnan(gains).all():
            gains = gains[~np.isnan(gains)]
            found[kind]["balanced"] = 100 * float(((gains > 0) + 0.5 * (gains == 0)).mean())
        if not np.isnan(order).all():
            found[kind]["ordered"] = 100 * float(np.nanmean(order))
    return found


def twin_pairs(
    kinds: Mapping[str, Sequence[Row]],
) -> tuple[list[Row], list[BalancedPair]]:
    """Return images, and the sets of two images and two texts, for `balanced_benchmark`.

    Args:
        kinds: of a layout of two images: rows 2 k and 2 k + 1 are those of one entry.
    """
    images = [row for rows in kinds.values() for row in rows]
    of_kind = [kind for kind, rows in kinds.items() for _ in rows]
    return images, [
        BalancedPair(of_kind[a], a, a + 1, "", images[a]["true"][0], images[a + 1]["true"][0])
        for a in range(0, len(images), 2)
    ]


def _texts(row: Row) -> list[str]:
    richer = [row["richer"]] if row.get("richer") else []
    return [*row["true"], *row["false"], *richer]


def _margin(scores: Tensor, row: Row) -> float:
    """Return the lowest score of a true text less the highest of a false one."""
    true = len(row["true"])
    return float(scores[:true].min() - scores[true : true + len(row["false"])].max())


def _scored(
    evaluator: SplitEvaluator, rows: Sequence[Row]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return margins (N,), those less the margins with another image, and the order held.

    The second is NaN where there is no other image, the third where there is no richer text.
    """
    images = {row["image_id"]: row for row in rows}
    place = {image_id: number for number, image_id in enumerate(images)}
    own = [place[row["image_id"]] for row in rows]
    asked = [
        (text, image)
        for row, *both in zip(rows, own, another(own), strict=True)
        for image in both
        for text in _texts(row)
    ]
    texts, index = zip(*asked, strict=True)
    scores = evaluator.pairs(list(images.values()), texts, index)
    margins, others, order = [], [], []
    for row, mine, strange in zip(rows, own, another(own), strict=True):
        with_own, with_other, scores = scores.tensor_split([n := len(_texts(row)), 2 * n])
        margins.append(_margin(with_own, row))
        others.append(np.nan if mine == strange else _margin(with_other, row))
        richer = bool(row.get("richer")) and with_own[-1] > with_own[0]
        order.append(richer and margins[-1] > 0 if row.get("richer") else np.nan)
    return np.array(margins), np.array(margins) - np.array(others), np.array(order, float)


def another(images: Sequence[int]) -> list[int]:
    """Return for each entry the image of another entry, drawn once; its own if all are one."""
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    found = list(images)
    for at, entry in enumerate(order):
        later = (images[order[(at + step) % len(order)]] for step in range(1, len(order)))
        found[entry] = next((image for image in later if image != images[entry]), images[entry])
    return found
