"""`retrieval_metrics` as a torchmetrics metric, over batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import normalize

from ascl_plugin.adapters.missing import needs
from ascl_plugin.distributed import world_size
from ascl_plugin.metrics.recall import retrieval_metrics

with needs("torchmetrics", "metrics"):
    import torchmetrics
    from torchmetrics.utilities import dim_zero_cat

Ids = Tensor | Sequence[int]


def cosines(images: Tensor, texts: Tensor) -> Tensor:
    """Return the cosines (I, T) of features (I, D) and (T, D)."""
    return normalize(images.float(), dim=1) @ normalize(texts.float(), dim=1).T


class RetrievalMetrics(torchmetrics.Metric):
    """Metrics of `retrieval_metrics` from features that come in batches, on one process or many.

    All features are kept, and gathered from all processes. An image that comes again, by its id,
    counts once, and so does a text that has an id: a distributed sampler repeats rows so that
    processes have equally many.

    Args:
        scores: function from all image features (I, ...) and all text features (T, ...) to scores
            (I, T); by default the cosines of vectors.
        **options: options of `torchmetrics.Metric`.

    Examples:
        >>> import torch
        >>> from ascl_plugin.adapters.leaderboards.retrieval_metric import RetrievalMetrics
        >>> metric = RetrievalMetrics()
        >>> metric.update(torch.eye(2), torch.eye(2), image_ids=[7, 8], owners=[7, 8])
        >>> metric.update(torch.eye(2)[1:], torch.eye(2)[:1], image_ids=[8], owners=[8])
        >>> round(float(metric.compute()["t2i_r1"]), 1)
        66.7
    """

    higher_is_better = True
    full_state_update = False
    images: list[Tensor]
    texts: list[Tensor]
    image_ids: list[Tensor]
    owners: list[Tensor]
    text_ids: list[Tensor]

    def __init__(
        self, scores: Callable[[Tensor, Tensor], Tensor] = cosines, **options: Any
    ) -> None:
        super().__init__(**options)
        self.scores = scores
        self._numbered = 0  # ids given here; `reset` leaves it, so that none is given twice
        for name in ("images", "texts", "image_ids", "owners", "text_ids"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self,
        images: Tensor,
        texts: Tensor,
        image_ids: Ids | None = None,
        owners: Ids | None = None,
        text_ids: Ids | None = None,
    ) -> None:
        """Take in a batch.

        Args:
            images, texts: features (I, ...) and (T, ...).
            image_ids: (I,) numbers from 0, the same for an image whenever it comes; None: none of
                the images comes again.
            owners: (T,) the id of each text's image, of this batch or another; None: text i belongs
                to image i.
            text_ids: (T,) numbers from 0; None: none of the texts comes again.

        Raises:
            ValueError: ids of another number than the items, or below 0; no owners for another
                number of texts than images.
        """
        of_images = self._ids(image_ids, len(images), "image_ids")
        if owners is None and len(images) != len(texts):
            raise ValueError(f"{len(images)} images and {len(texts)} texts: pass owners")
        given = of_images if owners is None else self._ids(owners, len(texts), "owners")
        self.images.append(images.detach())
        self.texts.append(texts.detach())
        self.image_ids.append(of_images)
        self.owners.append(given)
        self.text_ids.append(self._ids(text_ids, len(texts), "text_ids"))

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics of `retrieval_metrics` over everything that came. Collective.

        Raises:
            ValueError: a text whose image never came; an image without a text.
        """
        ids, of_texts, owners = (
            dim_zero_cat(part).cpu().numpy()
            for part in (self.image_ids, self.text_ids, self.owners)
        )
        kept, place = np.unique(ids, return_index=True)
        texts = np.unique(of_texts, return_index=True)[1]
        row = np.searchsorted(kept, owners[texts]).clip(max=len(kept) - 1)
        if (lost := np.flatnonzero(kept[row] != owners[texts])).size:
            raise ValueError(f"a text belongs to image {owners[texts[lost[0]]]}, which never came")
        device = self.device
        scores = self.scores(
            dim_zero_cat(self.images)[torch.from_numpy(place).to(device)],
            dim_zero_cat(self.texts)[torch.from_numpy(texts).to(device)],
        )
        found = retrieval_metrics(scores, row)
        return {name: torch.tensor(value, device=device) for name, value in found.items()}

    def _ids(self, given: Ids | None, count: int, name: str) -> Tensor:
        """Return the ids (N,) int64; those given here are negative, another range on each rank."""
        if given is None:
            rank = dist.get_rank() if world_size() > 1 else 0
            first = -(rank << 48) - self._numbered - 1
            self._numbered += count
            return torch.arange(first, first - count, -1, device=self.device)
        ids = torch.as_tensor(given, dtype=torch.int64, device=self.device)
        if tuple(ids.shape) != (count,) or (ids < 0).any():
            raise ValueError(
                f"{name} must be {count} numbers from 0, got {tuple(ids.shape)}"
                + (f" from {int(ids.min())}" if ids.numel() else "")
            )
        return ids
