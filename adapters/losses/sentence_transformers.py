"""The loss in the trainer of sentence-transformers, plain and with cached gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ascl_plugin.adapters.losses.embeddings import EmbeddingLoss, total
from ascl_plugin.adapters.missing import needs

with needs("sentence_transformers", "sentence-transformers"):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.losses.gradcache import CachedLossMixin


class AsymmetryRankingLoss(nn.Module):
    """`AsymmetryLoss` where a loss of sentence-transformers is asked for.

    Columns are (query, positive, further positives ..., negatives ...), texts or, for a multimodal
    model, pictures: the first column takes the place of images.

    Args:
        model: the model that is trained.
        loss: loss of the four score blocks. None: half of `AsymmetryLoss` at temperature .05.
        further_positives: number of columns after the second that are positives, too (richer or
            shorter texts); the rest are negatives, to every query.
        noise, strength: as `EmbeddingLoss`; with noise, texts without negatives get one.
        gather_across_devices: compare the pairs of all processes.

    Relations:
        With the defaults and nothing generated it is sentence-transformers'
        ``MultipleNegativesRankingLoss(model, directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction")``, equal in value. The trainer logs each term.

    Examples:
        >>> loss = AsymmetryRankingLoss(model, further_positives=1)  # doctest: +SKIP
        >>> SentenceTransformerTrainer(model, train_dataset=table, loss=loss)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: SentenceTransformer,
        loss: nn.Module | None = None,
        further_positives: int = 0,
        noise: str = "none",
        strength: float | None = None,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__()
        if further_positives < 0:
            raise ValueError(f"further_positives must be at least 0, got {further_positives}")
        self.model = model
        self.further_positives = further_positives
        self.embedding_loss = EmbeddingLoss(loss, noise, strength, gather_across_devices)

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> Any:
        """Return the terms of the columns, which the trainer adds and logs."""
        return self.terms([self.model(x)["sentence_embedding"] for x in sentence_features])

    def terms(self, columns: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the terms of the columns' embeddings, each (N, D)."""
        last = 2 + self.further_positives
        if len(columns) < last:
            raise ValueError(f"need {last} columns at least, got {len(columns)}")
        query, positive, *others = columns
        return self.embedding_loss(query, positive, others[: last - 2], others[last - 2 :])

    def get_config_dict(self) -> dict[str, Any]:
        """Return the options, for the model card."""
        own = self.embedding_loss
        return {
            "loss": repr(own.loss),
            "further_positives": self.further_positives,
            "noise": own.noise,
            "gather_across_devices": own.gather,
        }


class CachedAsymmetryRankingLoss(CachedLossMixin, AsymmetryRankingLoss):
    """`AsymmetryRankingLoss` of big batches: activations of one mini-batch at a time (GradCache).

    Args:
        model: the model that is trained.
        mini_batch_size: number of items of a column that are encoded at once.
        **options: options of `AsymmetryRankingLoss`.
    """

    def __init__(
        self, model: SentenceTransformer, mini_batch_size: int = 32, **options: Any
    ) -> None:
        AsymmetryRankingLoss.__init__(self, model, **options)
        self.mini_batch_size = mini_batch_size

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> Tensor:
        """Return the loss; its backward pass encodes every mini-batch a second time."""
        return self.forward_cached(sentence_features, labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Return the loss of the embeddings of all mini-batches, and its gradients if asked."""
        terms = self.terms([torch.cat(column) for column in reps])
        loss = total(terms)
        if with_backward:
            loss.backward()
        return loss.detach() if with_backward else loss
