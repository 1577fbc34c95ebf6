"""The loss in the Trainer of transformers, on a CLIP.

    pip install "ascl-plugin[recipes]"
    python examples/loss_hf_trainer.py

A CLIP of random weights, so that nothing is fetched; `CLIPModel.from_pretrained` takes its place,
and its tokenizer and image processor that of the functions here: `AsymmetryCollator(tokenizer=...,
images=...)`. Lines marked `# +` are what changes for a Trainer of CLIP, whose own loss is InfoNCE.
"""

from __future__ import annotations

import tempfile

import torch
from transformers import CLIPConfig, CLIPModel, TrainingArguments
from two_colours import WORDS, pictures, rows, tokenize

from ascl_plugin import AsymmetryCollator  # +
from ascl_plugin.adapters.losses.hf_trainer import AsymmetryTrainer  # +


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


def main(epochs: int = 40) -> list[float]:
    """Train; print and return the losses."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=28, learning_rate=1e-3,
            logging_steps=2, report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = AsymmetryTrainer(  # +
            tiny_clip(),
            arguments,
            data_collator=AsymmetryCollator(tokenize, pictures, negatives="gaussian"),  # +
            train_dataset=rows(),
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
