"""The loss under the interface of pytorch-metric-learning.

    pip install "ascl-plugin[metric-learning]"
    python examples/loss_metric_learning.py

Images are the embeddings, texts the reference; generated negatives are rows of the reference whose
label is -1. The interface has no place for generated positives. Lines marked `# +` are what changes
in a loop with a loss of pytorch-metric-learning.
"""

from __future__ import annotations

from itertools import islice

import torch
from two_colours import DualEncoder, batches, pictures, tokenize

from ascl_plugin import AsymmetryCollator, TextFeatures  # +
from ascl_plugin.adapters.losses.metric_learning import AsymmetryMetricLoss  # +
from ascl_plugin.asymmetry import generate_negatives  # +


def main(steps: int = 60) -> list[float]:
    """Train; print and return the losses."""
    torch.manual_seed(0)
    model = DualEncoder()
    collate = AsymmetryCollator(tokenize, pictures, positives="none", negatives="gaussian")  # +
    loss_fn = AsymmetryMetricLoss(temperature=0.05)  # +
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for rows in islice(batches(), steps):
        batch = collate(rows)
        image = model.encode_image(batch["pixel_values"])
        mask = batch["attention_mask"].bool()
        words = model.words(batch["input_ids"])
        noisy = generate_negatives(TextFeatures(words, mask), batch["noise_seed"], "gaussian")  # +
        texts = torch.cat([model.pool(words, mask), model.pool(noisy.words, mask)])  # +
        labels = torch.arange(len(image))
        kinds = torch.cat([labels, torch.full_like(labels, -1)])  # +
        loss = loss_fn(image, labels, ref_emb=texts, ref_labels=kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
