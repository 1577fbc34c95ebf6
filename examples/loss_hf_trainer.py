"""The loss in the Trainer of transformers, on a CLIP.

    pip install "ascl-plugin[recipes]"
    python examples/loss_hf_trainer.py

A CLIP of random weights, so that nothing is fetched; `CLIPModel.from_pretrained` takes its place.
Lines marked `# +` are what changes for a Trainer of CLIP, whose own loss is InfoNCE. Two things use
what a `compute_loss_func` is handed: CLIP scores any number of texts, so the generated positives
are N more texts; and `labels` carry the seeds of the noise. The Trainer does not divide the loss of
a `compute_loss_func` by the steps of gradient accumulation: the function does, by the number of
pairs in all of them. Noise acts on the texts' embeddings,
each a text of one word. With several processes the loss sees the pairs of its own.
"""

from __future__ import annotations

import tempfile

import torch
from transformers import CLIPConfig, CLIPModel, Trainer, TrainingArguments
from two_colours import WORDS, pictures, rows, tokenize

from ascl_plugin import AsymmetryCollator, AsymmetryLoss, TextFeatures, generate_negatives  # +


def tiny_clip() -> CLIPModel:
    """Return a CLIP of two blocks a tower, width 64, with the words of the made data."""
    tower = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }  # fmt: skip
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 2}
    vision = {"image_size": 32, "patch_size": 8}
    ends = {"bos_token_id": 1, "pad_token_id": 0}
    return CLIPModel(
        CLIPConfig(text_config=tower | text | ends, vision_config=tower | vision, projection_dim=32)
    )


def collate(batch: list[dict]) -> dict[str, torch.Tensor]:
    """Return pictures, N captions, N generated positives, and seeds."""
    drawn = [AsymmetryCollator(tokenize).draw(row) for row in batch]  # +
    texts = tokenize([d["caption"] for d in drawn] + [d["positive"] for d in drawn])  # +
    return {
        **texts,
        **pictures(batch),
        "labels": torch.tensor([d["noise_seed"] for d in drawn]),
    }  # +


def compute_loss(outputs, labels, num_items_in_batch=None):  # +
    """Return the loss of CLIP's outputs."""
    image, (text, richer) = outputs.image_embeds, outputs.text_embeds.chunk(2)  # +
    noisy = generate_negatives(TextFeatures(text[:, None]), labels, "gaussian").words[:, 0]  # +
    loss = AsymmetryLoss(temperature=0.05)(image @ text.T, image @ noisy.T, image @ richer.T)  # +
    return loss * (len(labels) / num_items_in_batch if num_items_in_batch is not None else 1)  # +


def main(epochs: int = 40) -> list[float]:
    """Train; print and return the losses."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=28, learning_rate=1e-3,
            logging_steps=2, report_to="none", save_strategy="no", remove_unused_columns=False,
            use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(
            tiny_clip(),
            arguments,
            data_collator=collate,
            train_dataset=rows(),
            compute_loss_func=compute_loss,  # +
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
