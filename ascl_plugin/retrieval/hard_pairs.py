"""The pairs worth a closer look: those that a cheap score finds hard to tell from right ones."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ascl_plugin.distributed import gather, gather_features
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.shares import shares


@runtime_checkable
class LocalPairs(Protocol):
    """A scorer u2 S_local + (1 - u2) S_plain that scores chosen pairs, as `CrossModalFusion`."""

    global_score: str

    @property
    def u2(self) -> float | Tensor:
        """Weight of the local score."""
        ...

    def plain_scores(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Return S_plain (I, T) of all pairs."""
        ...

    def score_pairs_local(
        self, images: ImageFeatures, texts: TextFeatures, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """Return S_local (P,) of chosen pairs."""
        ...


def check_scorer(scorer: object) -> LocalPairs:
    """Return the scorer.

    Raises:
        ValueError: it cannot score chosen pairs by a local and a plain part.
    """
    if not isinstance(scorer, LocalPairs) or scorer.global_score != "plain":
        raise ValueError(
            "hard_pairs needs a fusion of a local and a plain score: --fusion cross_modal "
            "--fusion.global_score plain"
        )
    return scorer


def hard_pairs(sim: Tensor, targets: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the right pairs and of the hardest wrong ones.

    Args:
        sim: (I, T) scores.
        targets: (T,) int64, the image of each text.
        k: wrong images chosen for each text, and wrong texts for each image, by score.

    Returns:
        Rows and columns (P,) int64, each pair once, in order of rows.
    """
    columns = torch.arange(sim.shape[1], device=sim.device)
    chosen = torch.zeros(sim.shape, dtype=torch.bool, device=sim.device)
    wrong = sim.detach().clone()
    wrong[targets, columns] = -torch.inf
    for dim in (0, 1):
        count = min(k, sim.shape[dim])
        chosen.scatter_(dim, wrong.topk(count, dim=dim).indices, True)
    # where there are fewer than k wrong ones, right ones are chosen here already
    chosen[targets, columns] = True
    rows, columns = chosen.nonzero(as_tuple=True)
    return rows, columns


def first_texts(image_of_text: Tensor) -> Tensor:
    """Return the number of the first text of each image, of texts in order of images."""
    same = image_of_text[1:] == image_of_text[:-1]
    return torch.cat([same.new_zeros(1), same]).logical_not().nonzero()[:, 0]


def score_hard_pairs(
    scorer: LocalPairs, images: ImageFeatures, texts: TextFeatures, k: int
) -> Tensor:
    """Return S (I, I) of the right pairs and of the hardest, -inf for all others. Collective.

    Args:
        scorer: see `LocalPairs`.
        images: this rank's images.
        texts: one text of each of them.
        k: see `hard_pairs`.
    """
    texts = gather_features(texts)
    plain = scorer.plain_scores(images, texts)
    every = gather(plain.detach())
    rows, columns = hard_pairs(every, torch.arange(len(every), device=every.device), k)
    first = shares("own", len(images), every.device).own.start
    mine = (rows >= first) & (rows < first + len(images))
    rows, columns = rows[mine] - first, columns[mine]
    local = scorer.score_pairs_local(images, texts, rows, columns)
    whole = scorer.u2 * local + (1 - scorer.u2) * plain[rows, columns]
    scores = whole.new_full(plain.shape, -torch.inf)
    return gather(scores.index_put((rows, columns), whole))
