"""Features of pictures and strings as people have them, and ranked lists of scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypedDict, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from ascl_plugin.features import F, ImageFeatures, TextFeatures, concatenate
from ascl_plugin.interfaces import FromFiles, ImageEncoder, Row, TextEncoder
from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs
from ascl_plugin.retrieval.raw_features import to_inputs
from ascl_plugin.scoring.blocks import device_of

#: A picture: a path, a PIL image, or pixels (height, width, 3) or (height, width), uint8.
Picture = str | Path | Image.Image | np.ndarray
T = TypeVar("T")


class Ranked(TypedDict):
    """A document and its score, as rankers of sentence-transformers return them."""

    corpus_id: int
    score: float


class Encodes(Protocol):
    """A model with encoders, such as `RetrievalModel`."""

    image_encoder: ImageEncoder
    text_encoder: TextEncoder

    @property
    def lexical_ids(self) -> Callable[[Sequence[str]], Tensor] | None:
        """Function from strings to `lexical_ids`; None for a model without."""
        ...

    def encode_images(self, batch: dict[str, Tensor]) -> ImageFeatures:
        """Return features of a batch's images."""
        ...

    def encode_texts(self, batch: dict[str, Tensor]) -> TextFeatures:
        """Return features of a batch's texts."""
        ...


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Switch a module to evaluation for the length of a block, without gradients."""
    training = isinstance(model, nn.Module) and model.training
    try:
        if isinstance(model, nn.Module):
            model.eval()
        with torch.no_grad():
            yield
    finally:
        if isinstance(model, nn.Module):
            model.train(training)


def embed_images(
    model: Encodes, images: Sequence[Picture], batch_size: int = 32, progress: bool = False
) -> ImageFeatures:
    """Return features of N pictures on the CPU; see `RetrievalModel.embed_images`."""
    if isinstance(model.image_encoder, FromFiles):
        raise ValueError("the model's features come from region files: it encodes no pictures")
    rows = [row_of(picture, place) for place, picture in enumerate(_several(images, "pictures"))]
    inputs = ImageInputs(model.image_encoder, memory=0)

    def encode(batch: Sequence[Row]) -> ImageFeatures:
        return model.encode_images(to_inputs(inputs(batch), device_of(model.image_encoder)))

    return _in_batches(model, rows, encode, batch_size, "encoding images", progress)


def embed_texts(
    model: Encodes, texts: Sequence[str], batch_size: int = 64, progress: bool = False
) -> TextFeatures:
    """Return features of N texts on the CPU; see `RetrievalModel.embed_texts`."""
    for place, text in enumerate(_several(texts, "texts")):
        if not isinstance(text, str):
            raise TypeError(f"text {place} must be a string, got {type(text).__name__}")
    inputs = TextInputs(model.text_encoder, lexical=model.lexical_ids)

    def encode(batch: Sequence[str]) -> TextFeatures:
        return model.encode_texts(to_inputs(inputs(batch), device_of(model.text_encoder)))

    return _in_batches(model, texts, encode, batch_size, "encoding texts", progress)


def best(scores: Tensor, top_k: int | None = None) -> list[Ranked]:
    """Return the highest of scores (N,), ties in order of places."""
    order = scores.argsort(descending=True, stable=True)[:top_k].tolist()
    return [{"corpus_id": place, "score": float(scores[place])} for place in order]


def _in_batches(
    model: Encodes,
    items: Sequence[T],
    encode: Callable[[Sequence[T]], F],
    batch_size: int,
    title: str,
    progress: bool,
) -> F:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    starts = tqdm(range(0, len(items), batch_size), title, disable=not progress)
    with evaluating(model):
        return concatenate([encode(items[s : s + batch_size]).to("cpu") for s in starts])


def _several(items: Sequence[T], what: str) -> Sequence[T]:
    if isinstance(items, str | Path) or not isinstance(items, Sequence):
        raise TypeError(f"{what} must come in a list, got {type(items).__name__}")
    if not items:
        raise ValueError(f"{what}: the list is empty")
    return items


def row_of(picture: Picture, place: int) -> Row:
    """Return a row of data for a picture; `place` names it in errors."""
    if isinstance(picture, str | Path):
        return {"image": {"path": os.fspath(picture), "bytes": None}, "image_id": str(picture)}
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or not (
            picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)
        ):
            raise ValueError(
                f"picture {place}: expected uint8 (height, width, 3) or (height, width), got "
                f"{picture.dtype} {picture.shape}"
            )
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise TypeError(
            f"picture {place} must be a path, a PIL image or an array, got {type(picture).__name__}"
        )
    return {"image": picture, "image_id": str(place)}
