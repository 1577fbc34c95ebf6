"""The loss in a LightningModule.

    pip install "ascl-plugin[lightning]"
    python examples/loss_lightning.py

Lines marked `# +` are what changes in a module that trained with InfoNCE: the mixin has its
training step, over the pairs of all processes.
"""

from __future__ import annotations

from itertools import islice

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader
from two_colours import DualEncoder, batches, pictures, tokenize

from ascl_plugin import AsymmetryCollator  # +
from ascl_plugin.adapters.losses.lightning import AsymmetryMixin  # +


class Retrieval(AsymmetryMixin, lightning.LightningModule):  # +
    """A dual encoder and its objective."""

    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()

    def encode_image(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Embeddings of a batch's images."""
        return self.model.encode_image(batch["pixel_values"])  # +

    def encode_text(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Embeddings of a batch's texts."""
        return self.model.encode_text(batch["input_ids"], batch["attention_mask"])  # +

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


class Losses(Callback):
    """The logged losses in a list."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Keep the loss of a step."""
        self.values.append(float(trainer.callback_metrics["loss"]))


def main(steps: int = 60) -> list[float]:
    """Train; print and return the losses."""
    lightning.seed_everything(0, verbose=False)
    collate = AsymmetryCollator(tokenize, pictures, positives="mixed", negatives="gaussian")  # +
    loader = DataLoader(list(islice(batches(), steps)), batch_size=None, collate_fn=collate)
    losses = Losses()
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[losses],
    )  # fmt: skip
    trainer.fit(Retrieval(), loader)
    print(f"loss {losses.values[0]:.3f} -> {losses.values[-1]:.3f}")
    return losses.values


if __name__ == "__main__":
    main()
