"""Retrieval models in CLIP_benchmark, whose registry of models gets one more type, "ascl".

    python -m ascl_plugin.adapters.leaderboards.clip_benchmark eval --model_type ascl \
        --model RUN_DIR --pretrained "" --task zeroshot_retrieval --dataset ...

is its command with that type known. CLIP_benchmark scores by the cosine of one vector an image and
one a text: of a model with a fusion these are its pooled towers, not its own score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ascl_plugin.adapters.missing import needs
from ascl_plugin.retrieval.inputs import TextInputs
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.scoring.search import image_embeddings, text_embeddings

with needs("clip_benchmark", "clip-benchmark"):
    from clip_benchmark import models

if TYPE_CHECKING:
    from PIL.Image import Image

TYPE = "ascl"


class Tokens(dict[str, Tensor]):
    """Inputs of texts, which move between devices as one."""

    def to(self, device: torch.device | str) -> Tokens:
        """Return the same inputs on `device`."""
        return Tokens({name: value.to(device) for name, value in self.items()})


class Towers(nn.Module):
    """A retrieval model under the names that CLIP_benchmark calls."""

    def __init__(self, model: RetrievalModel) -> None:
        super().__init__()
        self.model = model
        self.of = "regions" if model.text_pool is None else "pooled"

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return vectors (I, D) of unit length."""
        features = self.model.encode_images({"pixel_values": pixels})
        return image_embeddings(features, self.of).to(pixels.device)

    def encode_text(self, tokens: Tokens) -> Tensor:
        """Return vectors (T, D) of unit length."""
        features = self.model.encode_texts(tokens)
        return text_embeddings(features, self.of).to(features.words.device)


def load(
    model_name: str | Path,
    pretrained: str = "",
    cache_dir: str | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Towers, Callable[..., Tensor], Callable[[Sequence[str]], Tokens]]:
    """Return model, transform and tokenizer, as the loaders of CLIP_benchmark do.

    Args:
        model_name: folder of a run or of a saved model, or hub id.
        pretrained, cache_dir: not used; the model brings its weights.
        device: where the model computes.
    """
    model = RetrievalModel.from_pretrained(model_name).to(device).eval()
    inputs = TextInputs(model.text_encoder, lexical=model.lexical_ids)

    def transform(picture: Image) -> Tensor:
        return model.image_encoder.preprocess(picture.convert("RGB"))

    return Towers(model), transform, lambda texts: Tokens(inputs(list(texts)))


def register() -> None:
    """Make the type known: `clip_benchmark.models.load_clip("ascl", RUN_DIR, ...)`."""
    models.TYPE2FUNC[TYPE] = load
    if TYPE not in models.MODEL_TYPES:
        models.MODEL_TYPES.append(TYPE)


def main() -> None:
    """Run CLIP_benchmark's command."""
    from clip_benchmark.cli import main as command

    register()
    command()


if __name__ == "__main__":
    main()
