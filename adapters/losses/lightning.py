"""The loss in a LightningModule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ascl_plugin.adapters.losses.embeddings import EmbeddingLoss, text_blocks, total

_DEFAULT = EmbeddingLoss()


class AsymmetryMixin:
    """Mixin of a LightningModule: the training step, over the pairs of all processes.

    The class defines `encode_image` and `encode_text`, each from a batch of `AsymmetryCollator` to
    embeddings (N, D) and (T, D); `encode_text` is called once for each kind of texts, captions or
    generated, with their tokens under the names of the captions'. Terms are logged.

    Attributes:
        asymmetry: an `EmbeddingLoss` to set in ``__init__``, with a learned temperature, for
            instance; without it, one with its defaults is taken.

    Examples:
        >>> class Retrieval(AsymmetryMixin, lightning.LightningModule):  # doctest: +SKIP
        ...     def encode_image(self, batch):
        ...         return self.model.encode_image(batch["pixel_values"])
        ...
        ...     def encode_text(self, batch):
        ...         return self.model.encode_text(batch["input_ids"], batch["attention_mask"])
    """

    if TYPE_CHECKING:
        asymmetry: EmbeddingLoss
        log_dict: Any

    def encode_image(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return embeddings (N, D) of the batch's images."""
        raise NotImplementedError(f"{type(self).__name__} needs encode_image(batch)")

    def encode_text(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return embeddings (T, D) of the batch's texts."""
        raise NotImplementedError(f"{type(self).__name__} needs encode_text(batch)")

    def asymmetry_terms(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms of a batch; their sum is the loss."""
        whole = (blocks := text_blocks(batch))[""]
        texts = {prefix: self.encode_text({**whole, **block}) for prefix, block in blocks.items()}
        loss = getattr(self, "asymmetry", _DEFAULT)
        return loss.of_batch(self.encode_image(whole), texts, batch)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch; log it and its terms."""
        terms = self.asymmetry_terms(batch)
        loss = total(terms)
        logged = {**terms, "loss": loss}
        self.log_dict({k: v.detach() for k, v in logged.items()}, batch_size=len(batch["row"]))
        return loss
