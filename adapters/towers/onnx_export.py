"""Both towers of a dual encoder as ONNX files, for runtimes without torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from ascl_plugin.adapters.missing import needs
from ascl_plugin.disk import written
from ascl_plugin.retrieval.embed import evaluating
from ascl_plugin.retrieval.model import RetrievalModel

with needs("onnx", "onnx"):
    import onnx  # noqa: F401  torch's exporter writes with it


class _Embedding(nn.Module):
    """A tower with unit vectors as its output."""

    def __init__(self, tower: nn.Module, embed: Callable[..., Tensor]) -> None:
        super().__init__()
        self.tower, self.embed = tower, embed

    def forward(self, *inputs: Tensor) -> Tensor:
        return normalize(self.embed(*inputs), dim=1)


def export_onnx(model: RetrievalModel, folder: str | os.PathLike[str]) -> None:
    """Write the towers of a model made by `attach` as `image.onnx` and `text.onnx`.

    Both give `embeddings`, unit vectors, whose dot products are the scores of the bare model; N
    and T are free. The fusion and projections to a joint width are left out.

    ==============  ==================================  ==========================================
    file            input                               as
    ==============  ==================================  ==========================================
    ``image.onnx``  ``pixel_values`` (N, 3, H, W)       `model.image_encoder.preprocess` gives
    ``text.onnx``   ``input_ids`` (T, L), L: the        tokenizers give with
                    context; with an open_clip model    ``padding="max_length"``; open_clip's own
                    or a SigLIP nothing else, else      tokenizer always does
                    ``attention_mask`` (T, L)
    ==============  ==================================  ==========================================

    Args:
        model: both encoders of one model of open_clip or of transformers.
        folder: written aside, then moved into place; an older one is replaced.

    Raises:
        TypeError: encoders that give no embeddings.
    """
    images, words = cast(Any, model.image_encoder), cast(Any, model.text_encoder)
    if not hasattr(words, "context"):
        raise TypeError(f"ONNX export needs the encoders of attach(), got {type(words).__name__}")
    pixels = images.preprocess(Image.new("RGB", (64, 64))).expand(2, -1, -1, -1)
    ids = torch.zeros(2, words.context, dtype=torch.long)
    ids[:, :1] = words.tokenize(["a"])["input_ids"][:, :1]
    tokens = {"input_ids": ids}
    if not getattr(words, "unmasked", True):  # a model that reads no mask has no such input
        tokens["attention_mask"] = torch.ones_like(ids)
    with written(Path(folder)) as aside, evaluating(model):
        aside.mkdir(exist_ok=True)
        image = _Embedding(images, lambda x: images(x).pooled)
        _write(image, {"pixel_values": pixels}, aside / "image.onnx")
        text = _Embedding(words, lambda ids, mask=None: words.embed(ids, mask))
        _write(text, tokens, aside / "text.onnx")


def _write(tower: nn.Module, inputs: dict[str, Tensor], file: Path) -> None:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no such operator
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shapes that are fixed: all but the first axis are
            # dynamo=True fixes the number of items in some towers, and takes ten times as long
            torch.onnx.export(
                tower.eval(), tuple(inputs.values()), file, dynamo=False,
                input_names=list(inputs), output_names=["embeddings"],
                dynamic_axes={name: {0: "items"} for name in (*inputs, "embeddings")},
            )  # fmt: skip
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
