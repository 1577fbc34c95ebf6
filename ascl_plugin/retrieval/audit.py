"""An audit that every scorer must pass before its numbers mean anything.

A score that sees the pairing it is evaluated on can be far above chance on noise. (Published code
lets a test caption attend to its own image before it is compared.) Three properties rule that out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.interfaces import Rows, Scorer, SplitEvaluator
from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.scoring.matrix import score_matrix

SAMPLE = 32  # images of a split, each with one of its captions
TOLERANCE = 1e-4  # largest difference that counts as rounding


class AuditError(AssertionError):
    """The scores depend on more than one image and one text."""


@torch.no_grad()
def audit(
    scorer: Scorer, images: ImageFeatures, texts: TextFeatures, tolerance: float = TOLERANCE
) -> float:
    """Check that a scorer is a function of one image and one text.

    (a) Shuffling images and texts shuffles the score matrix and nothing else.
    (b) A pair scored alone gets the score it gets in the batch.

    Args:
        scorer: `(images, texts) -> (I, T)`.
        images, texts: a sample; a few dozen of each are enough. Text i must belong to image i, to
            reveal a scorer that finds the pairing by position.
        tolerance: largest difference that counts as rounding.

    Returns:
        The largest difference found, in units of the score.

    Raises:
        AuditError: a property fails; the message says which, and by how much.
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
    worst = moved
    for i in range(min(len(images), 8)):
        for t in {i % len(texts), (i + 1) % len(texts)}:
            alone = scorer(images[i : i + 1], texts[t : t + 1])[0, 0]
            off = (alone - sim[i, t]).abs().item()
            if not off <= tolerance:
                raise AuditError(
                    f"image {i} and text {t} score {alone:.4f} alone and {sim[i, t]:.4f} in the "
                    "batch: the score depends on the rest of the batch"
                )
            worst = max(worst, off)
    return worst


@torch.no_grad()
def chance_recall(
    scorer: Scorer, images: ImageFeatures, texts: TextFeatures
) -> tuple[float, float]:
    """Return I2T R@1 of the scorer on features without any pairing, and chance, in percent.

    (c) of the audit: pass noise, text i "belonging" to image i. An honest scorer stays near chance.
    """
    sim = scorer(images, texts)
    recall = retrieval_metrics(sim, torch.arange(len(texts)))["i2t_r1"]
    return recall, 100 / len(texts)


class SplitAudit:
    """The audit of a model on a sample of a split, and of entries of its score matrix.

    Args:
        evaluator: encodes and scores the sample as it does the split.
        rows: the split.
        texts: (T,) all its captions.
        caption_to_image: (T,) int64.
        seed: seed of the sample: `SAMPLE` images with one caption each.
    """

    def __init__(
        self,
        evaluator: SplitEvaluator,
        rows: Rows,
        texts: Sequence[str],
        caption_to_image: Tensor,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(texts), generator=generator)
        owners = caption_to_image[order]
        images = torch.randperm(int(owners.max()) + 1, generator=generator)[:SAMPLE]
        self.images = images.tolist()
        self.captions = [int(order[owners == image][0]) for image in images]
        self.rows = [rows[image] for image in self.images]
        self.texts = [texts[caption] for caption in self.captions]
        self.evaluator = evaluator
        self.largest = 0.0

    def check_scorer(self) -> None:
        """Audit the scores in tiles, on the sample; see `audit`."""
        evaluator = self.evaluator

        def tiled(images: ImageFeatures, texts: TextFeatures) -> Tensor:
            return score_matrix(evaluator.model, images, texts)

        images, texts = evaluator.encode_images(self.rows), evaluator.encode_texts(self.texts)
        self.largest = max(self.largest, audit(tiled, images, texts))

    @torch.no_grad()
    def check_matrix(self, sim: Tensor) -> None:
        """Compare entries of the score matrix with pairs that are encoded and scored alone.

        Each image of the sample is compared with its own caption and with another image's.

        Args:
            sim: (I, T) scores of the whole split.

        Raises:
            AuditError: an entry differs; the message names it.
        """
        evaluator = self.evaluator
        for i, image in enumerate(self.rows):
            for t in {i, (i + 1) % len(self.texts)}:
                row, column = self.images[i], self.captions[t]
                alone = evaluator.pairs([image], [self.texts[t]])[0].item()
                off = abs(alone - sim[row, column].item())
                if not off <= TOLERANCE:
                    raise AuditError(
                        f"image {row} and text {column} score {alone:.4f} alone and "
                        f"{sim[row, column]:.4f} in the matrix: the score depends on more than them"
                    )
                self.largest = max(self.largest, off)

    def report(self) -> dict[str, float]:
        """Return the size of the sample, and the largest difference in units of the score."""
        return {
            "images": len(self.images),
            "texts": len(self.captions),
            "largest_difference": self.largest,
        }
