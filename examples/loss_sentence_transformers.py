"""The loss in the trainer of sentence-transformers, on pairs of texts.

    pip install "ascl-plugin[sentence-transformers]"
    python examples/loss_sentence_transformers.py

Columns: a query, a text that answers it, and that text made richer (the generated positive). Where
the model is a CLIP, the first column holds pictures. Lines marked `# +` are what changes for
`MultipleNegativesRankingLoss`. Noise acts on the texts' embeddings.
"""

from __future__ import annotations

import tempfile

import torch
import transformers
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from two_colours import WORDS, rows

from ascl_plugin.adapters.losses.sentence_transformers import AsymmetryRankingLoss  # +


def tiny_model(folder: str) -> SentenceTransformer:
    """Return a BERT of one block and width 32, with the words of the made data."""
    config = transformers.BertConfig(
        vocab_size=len(WORDS) + 2, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate([*WORDS, "[UNK]", "[MASK]"])}
    transformers.BertTokenizerFast(
        vocab=vocabulary, cls_token="[START]", sep_token="[END]"
    ).save_pretrained(folder)
    transformer = Transformer(folder)
    return SentenceTransformer(
        modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu"
    )


def main(epochs: int = 40) -> list[float]:
    """Train; print and return the losses."""
    torch.manual_seed(0)
    captions = [row["captions"] for row in rows()]
    table = Dataset.from_dict(
        {
            "query": [second for _, second, _ in captions],
            "text": [first for first, _, _ in captions],
            "richer": [f"{first} . {third}" for first, _, third in captions],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(folder)
        arguments = SentenceTransformerTrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=28, learning_rate=3e-3,
            logging_steps=2, report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(
            model,
            arguments,
            train_dataset=table,
            loss=AsymmetryRankingLoss(model, further_positives=1, noise="gaussian"),  # +
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
