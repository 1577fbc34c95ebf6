"""The loss in a plain PyTorch loop.

    python examples/loss_bare_loop.py

Lines marked `# +` are what changes in a loop that trained with InfoNCE.
"""

from __future__ import annotations

from itertools import islice

import torch
from two_colours import DualEncoder, batches, pictures, tokenize

from ascl_plugin import AsymmetryCollator, AsymmetryLoss, TextFeatures  # +
from ascl_plugin.asymmetry import generate_negatives  # +


def main(steps: int = 60) -> list[float]:
    """Train; print and return the losses."""
    torch.manual_seed(0)
    model = DualEncoder()
    collate = AsymmetryCollator(tokenize, pictures, positives="mixed", negatives="gaussian")  # +
    loss_fn = AsymmetryLoss(temperature=0.05)  # +
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for rows in islice(batches(), steps):
        batch = collate(rows)
        image = model.encode_image(batch["pixel_values"])
        mask = batch["attention_mask"].bool()
        words = model.words(batch["input_ids"])
        noisy = generate_negatives(TextFeatures(words, mask), batch["noise_seed"], "gaussian")  # +
        richer = model.encode_text(
            batch["positive_input_ids"], batch["positive_attention_mask"]
        )  # +
        loss = loss_fn(
            image @ model.pool(words, mask).T,
            negative_sim=image @ model.pool(noisy.words, mask).T,  # +
            positive_sim=image @ richer.T,  # +
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
