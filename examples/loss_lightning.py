"""The loss in a LightningModule.

    pip install "ascl-plugin[examples]"
    python examples/loss_lightning.py

Lines marked `# +` are what changes in a module that trained with InfoNCE. The loss sees the pairs
of its own process; on several, gather features first: `ascl_plugin.distributed.gather` keeps
gradients.
"""

from __future__ import annotations

from itertools import islice

import lightning
import torch
from torch.utils.data import DataLoader
from two_colours import DualEncoder, batches, pictures, tokenize

from ascl_plugin import AsymmetryCollator, AsymmetryLoss, TextFeatures  # +
from ascl_plugin.asymmetry import generate_negatives  # +


class Retrieval(lightning.LightningModule):
    """A dual encoder and its objective."""

    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.loss_fn = AsymmetryLoss(temperature=0.05)  # +
        self.losses: list[float] = []

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        """The loss of a batch of the collator."""
        model, mask = self.model, batch["attention_mask"].bool()
        image = model.encode_image(batch["pixel_values"])
        words = model.words(batch["input_ids"])
        noisy = generate_negatives(TextFeatures(words, mask), batch["noise_seed"], "gaussian")  # +
        richer = model.encode_text(
            batch["positive_input_ids"], batch["positive_attention_mask"]
        )  # +
        loss = self.loss_fn(
            image @ model.pool(words, mask).T,
            negative_sim=image @ model.pool(noisy.words, mask).T,  # +
            positive_sim=image @ richer.T,  # +
        )
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def main(steps: int = 60) -> list[float]:
    """Train; print and return the losses."""
    lightning.seed_everything(0, verbose=False)
    collate = AsymmetryCollator(tokenize, pictures, positives="mixed", negatives="gaussian")  # +
    loader = DataLoader(list(islice(batches(), steps)), batch_size=None, collate_fn=collate)
    module = Retrieval()
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    print(f"loss {module.losses[0]:.3f} -> {module.losses[-1]:.3f}")
    return module.losses


if __name__ == "__main__":
    main()
