"""The pairs worth a closer look: those that a cheap score finds hard to tell from right ones.

A score trained on such pairs alone means nothing for the others, and is still added to theirs when
all pairs are ranked: pairs at random belong in, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor

from ascl_plugin.distributed import gather, gather_features
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.shares import shares


@dataclass(frozen=True)
class HardPairs:
    """Which pairs of a batch the whole score is trained on.

    Attributes:
        hardest, others: see `hard_pairs`.
        every: 2 takes the pairs of every second image of the batch alone, and so on.
    """

    hardest: int
    others: int = 0
    every: int = 1


@runtime_checkable
class LocalPairs(Protocol):
    """A scorer u2 S_local + (1 - u2) S_plain that scores chosen pairs, or all by the local part."""

    global_score: str

    @property
    def u2(self) -> float | Tensor:
        """Weight of the local score."""
        ...

    def plain_scores(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Return S_plain (I, T) of all pairs."""
        ...

    def local_scores(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Return S_local (I, T) of all pairs."""
        ...

    def score_pairs_local(
        self, images: ImageFeatures, texts: TextFeatures, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """Return S_local (P,) of chosen pairs."""
        ...


def has_plain_part(scorer: object) -> TypeGuard[LocalPairs]:
    """Return True for a scorer whose global score is the plain one."""
    return isinstance(scorer, LocalPairs) and scorer.global_score == "plain"


def check_scorer(scorer: object) -> LocalPairs:
    """Return the scorer.

    Raises:
        ValueError: it cannot score chosen pairs by a local and a plain part.
    """
    if not has_plain_part(scorer) or scorer.u2 == 1:
        raise ValueError(
            "hard_pairs needs a fusion of a local and a plain score: --fusion cross_modal "
            "--fusion.global_score plain, or --fusion late, with local_weight below 1"
        )
    return scorer


def hard_pairs(sim: Tensor, hardest: int, others: int = 0) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the right pairs, the hardest wrong ones, and some others.

    Args:
        sim: (N, N) scores, right pairs on the diagonal, in a random order of pairs.
        hardest: wrong images chosen for each text, and wrong texts for each image, by score.
        others: texts chosen for each image whatever their score: those behind its own.

    Returns:
        Rows and columns (P,) int64, each pair once, in order of rows.
    """
    count = len(sim)
    own = torch.arange(count, device=sim.device)
    chosen = torch.zeros(sim.shape, dtype=torch.bool, device=sim.device)
    wrong = sim.detach().clone().fill_diagonal_(-torch.inf)
    for dim in (0, 1):
        chosen.scatter_(dim, wrong.topk(min(hardest, count), dim=dim).indices, True)
    for shift in range(min(others + 1, count)):
        chosen[own, (own + shift) % count] = True
    rows, columns = chosen.nonzero(as_tuple=True)
    return rows, columns


def first_texts(image_of_text: Tensor) -> Tensor:
    """Return the number of the first text of each image, of texts in order of images."""
    same = image_of_text[1:] == image_of_text[:-1]
    return torch.cat([same.new_zeros(1), same]).logical_not().nonzero()[:, 0]


def score_hard_pairs(
    scorer: LocalPairs,
    images: ImageFeatures,
    texts: TextFeatures,
    hardest: int,
    others: int = 0,
) -> Tensor:
    """Return S (I, I) of `hard_pairs`, -inf for all others. Collective.

    The local part alone gets a gradient: it learns what the plain one lacks. The plain one would
    lose what it learns of all pairs.

    Args:
        scorer: see `LocalPairs`.
        images: this rank's images.
        texts: one text of each of them.
        hardest, others: see `hard_pairs`; if all pairs are asked for, they are scored in one block,
            which costs less a pair.
    """
    texts = gather_features(texts)
    plain = scorer.plain_scores(images, texts).detach()
    if max(hardest, others) >= len(texts) - 1:
        local = scorer.local_scores(images, texts)
        return gather(scorer.u2 * local + (1 - scorer.u2) * plain)
    every = gather(plain)
    rows, columns = hard_pairs(every, hardest, others)
    first = shares("own", len(images), every.device).own.start
    mine = (rows >= first) & (rows < first + len(images))
    rows, columns = rows[mine] - first, columns[mine]
    local = scorer.score_pairs_local(images, texts, rows, columns)
    whole = scorer.u2 * local + (1 - scorer.u2) * plain[rows, columns]
    scores = whole.new_full(plain.shape, -torch.inf)
    return gather(scores.index_put((rows, columns), whole))
