"""The loss in the trainer of sentence-transformers, on pairs of texts.

    pip install "ascl-plugin[examples]"
    python examples/loss_sentence_transformers.py

Columns: a query, a text that answers it, and that text made richer (the generated positive). Where
the model is a CLIP, the first column holds pictures. The loss takes the place, and the members, of
`MultipleNegativesRankingLoss`: lines marked `# +` are what changes. Noise acts on the texts'
embeddings, each a text of one word. The loss sees the pairs of its own process.
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
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch.nn.functional import normalize
from two_colours import WORDS, rows

from ascl_plugin import AsymmetryLoss, TextFeatures  # +
from ascl_plugin.asymmetry import generate_negatives  # +


class AsymmetryRankingLoss(MultipleNegativesRankingLoss):  # +
    """`AsymmetryLoss` over the columns (query, text, richer text)."""

    def compute_loss_from_embeddings(self, embeddings, labels):  # +
        """The loss of a batch."""
        query, text, richer = (normalize(column, dim=-1) for column in embeddings)  # +
        seeds = torch.randint(2**62, (len(text),))  # +
        noisy = generate_negatives(TextFeatures(text[:, None]), seeds, "gaussian").words[:, 0]  # +
        return AsymmetryLoss(temperature=0.05)(
            query @ text.T, query @ noisy.T, query @ richer.T
        )  # +


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
            loss=AsymmetryRankingLoss(model),  # +
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
