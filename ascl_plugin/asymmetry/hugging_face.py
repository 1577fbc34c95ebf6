"""Tokenizers and image processors of Hugging Face as functions of the collator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ascl_plugin.interfaces import Row


@runtime_checkable
class HuggingFace(Protocol):
    """A tokenizer, image processor or processor of transformers."""

    model_input_names: Sequence[str]

    def __call__(self, *args: Any, **options: Any) -> Mapping[str, Any]:
        """Return tensors by name."""
        ...


def tokenized_by(tokenizer: HuggingFace) -> Callable[[list[str]], dict[str, Tensor]]:
    """Return a function from texts to what `tokenizer` gives: tensors, cut to its longest.

    A tokenizer without attention masks, as SigLIP's, pads to its longest, others to the longest of
    the texts.
    """
    padding = "longest" if "attention_mask" in tokenizer.model_input_names else "max_length"

    def tokenize(texts: list[str]) -> dict[str, Tensor]:
        return dict(tokenizer(texts, padding=padding, truncation=True, return_tensors="pt"))

    return tokenize


def processed_by(
    processor: HuggingFace, column: str = "image"
) -> Callable[[Sequence[Row]], dict[str, Tensor]]:
    """Return a function from rows to `pixel_values` of the pictures (PIL) in a column.

    Args:
        processor: image processor, or a processor that has one.
        column: its name. Rows that say `mirrored` are mirrored.
    """

    def process(rows: Sequence[Row]) -> dict[str, Tensor]:
        pictures = [row[column].convert("RGB") for row in rows]
        mirror = 0  # PIL.Image.Transpose.FLIP_LEFT_RIGHT
        pictures = [
            picture.transpose(mirror) if row.get("mirrored") else picture
            for picture, row in zip(pictures, rows, strict=True)
        ]
        return dict(processor(images=pictures, return_tensors="pt"))

    return process
