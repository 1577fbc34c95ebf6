"""The loss under the interface of pytorch-metric-learning: embeddings, labels, a reference set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ascl_plugin.adapters.missing import needs
from ascl_plugin.losses import AsymmetryLoss

with needs("pytorch_metric_learning", "metric-learning"):
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.losses import BaseMetricLossFunction


class AsymmetryMetricLoss(BaseMetricLossFunction):
    """`AsymmetryLoss` where a loss of pytorch-metric-learning is asked for.

    Called as ``loss(images, labels, ref_emb=texts, ref_labels=labels)``. Rows of the reference
    labelled -1 are generated negatives, to every image.

    The interface has no place for generated positives (there is one reference, and a richer text
    is no other class), nor for several texts of an image in a batch (labels must differ). A
    miner's `indices_tuple` is refused. `DistributedLossWrapper` works if labels differ between
    ranks, too. `SelfSupervisedLoss` and `CrossBatchMemory` refuse losses that are not on their own
    list, this one included.

    Args:
        temperature, form: as `AsymmetryLoss`.
        **options: options of `BaseMetricLossFunction`: `distance`, which must grow with similarity
            (default: cosine); `embedding_regularizer`.

    Shapes:
        embeddings (N, D), labels (N,) all different, ref_emb (N + M, D), ref_labels (N + M,): the
        N labels in their order, and M times -1 anywhere among them. -> scalar.
    """

    def __init__(self, temperature: float = 0.05, form: str = "nll", **options: Any) -> None:
        super().__init__(**options)
        if not self.distance.is_inverted:
            name = type(self.distance).__name__
            raise ValueError(f"distance must grow with similarity, as CosineSimilarity, got {name}")
        self.asymmetry_loss = AsymmetryLoss(temperature, form=form)

    def get_default_distance(self) -> CosineSimilarity:
        """Return the cosine."""
        return CosineSimilarity()

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Any,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> dict[str, Any]:
        """Return the loss, reduced, in the form the base class expects."""
        if indices_tuple is not None:
            raise ValueError("AsymmetryMetricLoss weighs all pairs of a batch: it takes no miner")
        if ref_emb is embeddings or labels is None:
            raise ValueError("AsymmetryMetricLoss needs labels, and texts: ref_emb=, ref_labels=")
        real = ref_labels != -1
        if len(labels.unique()) < len(labels) or not torch.equal(labels, ref_labels[real]):
            raise ValueError(
                "AsymmetryMetricLoss needs labels that all differ, and ref_labels with the same in "
                "the same order; -1 marks generated negatives"
            )
        sim = self.distance(embeddings, ref_emb)
        negatives = None if real.all() else sim[:, ~real]
        loss = self.asymmetry_loss(sim[:, real], negatives)
        return {"loss": {"losses": loss, "indices": None, "reduction_type": "already_reduced"}}
