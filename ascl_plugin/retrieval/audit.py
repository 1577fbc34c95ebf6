"""What any scorer must pass before its numbers mean anything.

A score that sees the pairing it is scored on (published evaluation code attends a test caption over
its own image before comparing) can be far above chance on noise. Three properties rule that out.
"""

from __future__ import annotations

import torch

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.retrieval.metrics import retrieval_metrics
from ascl_plugin.retrieval.scoring import Scorer


class AuditError(AssertionError):
    """A scorer whose scores depend on more than the one image and the one text."""


@torch.no_grad()
def audit(
    scorer: Scorer, images: ImageFeatures, texts: TextFeatures, tolerance: float = 1e-4
) -> None:
    """Checks that a scorer is a function of one image and one text.

    (a) Shuffling images and texts shuffles the score matrix and nothing else.
    (b) A pair scored alone gets the score it gets in the batch.

    Args:
        scorer: `(images, texts) -> (I, T)`.
        images, texts: a sample; a few dozen of each are enough. Image i and text i are taken to be
            a pair, so that a scorer which looks for the pairing by position is found out.
        tolerance: largest difference that counts as rounding.

    Raises:
        AuditError: which property fails, and by how much.
    """
    sim = scorer(images, texts)
    if sim.shape != (len(images), len(texts)):
        raise AuditError(
            f"scores have shape {tuple(sim.shape)} for {len(images)} images, {len(texts)} texts"
        )
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(images), generator=generator).to(sim.device)
    columns = torch.randperm(len(texts), generator=generator).to(sim.device)
    moved = (scorer(images[rows], texts[columns]) - sim[rows][:, columns]).abs().max().item()
    if not moved <= tolerance:
        raise AuditError(f"shuffling images and texts changes scores by {moved:.3g}")
    for i in range(min(len(images), 8)):
        for t in {i % len(texts), (i + 1) % len(texts)}:
            alone = scorer(images[i : i + 1], texts[t : t + 1])[0, 0]
            off = (alone - sim[i, t]).abs().item()
            if not off <= tolerance:
                raise AuditError(
                    f"image {i} and text {t} score {alone:.4f} alone and {sim[i, t]:.4f} in the "
                    "batch: the score depends on what else is there"
                )


@torch.no_grad()
def chance_recall(
    scorer: Scorer, images: ImageFeatures, texts: TextFeatures
) -> tuple[float, float]:
    """I2T R@1 of the scorer on features that carry no pairing, and chance, both in percent.

    (c) of the audit: pass pure noise, image i "paired" with text i; an honest scorer stays near
    chance, one that sees the pairing does not.
    """
    sim = scorer(images, texts)
    recall = retrieval_metrics(sim, torch.arange(len(texts)))["i2t_r1"]
    return recall, 100 / len(texts)
