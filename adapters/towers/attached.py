"""Two towers that share a space, as a retrieval model that starts from their own scores."""

from __future__ import annotations

import warnings
from typing import Protocol, TypeVar

from ascl_plugin.interfaces import ComponentSpec
from ascl_plugin.retrieval.model import RetrievalModel

# of `CrossModalFusion`: the plain score, and beside it a local one whose weight grows from 0
_FROM_ZERO: dict[str, object] = {
    "global_score": "plain", "local_weight": 0.0, "learn_local_weight": True,
}  # fmt: skip


class Named(Protocol):
    """A half of a pretrained model."""

    model_name: str


I = TypeVar("I", bound=Named)  # noqa: E741
T = TypeVar("T", bound=Named)


def attached(
    image: dict[str, object],
    text: dict[str, object],
    fusion: ComponentSpec | None = None,
    dim: int | None = None,
    feature_norm: str = "layer",
) -> RetrievalModel:
    """Return a retrieval model on two towers of one pretrained model.

    By default wholes keep the towers' own projections, and S = (1 - u2) cos(G, G_w) + u2 S_local,
    where u2 is learned from 0: before any training scores are those of the towers. Regions and
    words have projections of their own, to the same width.

    Args:
        image, text: specs of the two encoders; the text encoder has an option `embedding`.
        fusion: options of `CrossModalFusion`, or {"name": "pooled"} for the towers' score alone.
        dim: joint width; None: that of the towers. With another width, and with another fusion,
            projections start from random weights, and a warning says so.
        feature_norm: as `RetrievalModel`.
    """
    head = {"name": "cross_modal", **(fusion or {})}
    if dim is None and head["name"] == "pooled" and head.get("image", "pooled") == "pooled":
        return RetrievalModel(
            image, {**text, "embedding": True}, {**head, "image": "pooled"}, None, feature_norm,
            text_pool="mean", projection="none",
        )  # fmt: skip
    whole = {**_FROM_ZERO, **head}
    if dim is None and head["name"] == "cross_modal" and whole["global_score"] == "plain":
        if whole["local_weight"]:
            _warn(f"local_weight {whole['local_weight']} adds attention of random weights")
        return RetrievalModel(
            image, {**text, "embedding": "beside"}, whole, None, feature_norm,
            text_pool="mean", projection="none",
        )  # fmt: skip
    _warn(f"fusion {head['name']} of width {dim or 1024} has projections of random weights")
    return RetrievalModel(image, text, fusion, dim or 1024, feature_norm)


def both_halves(model: RetrievalModel, image: type[I], text: type[T]) -> tuple[I, T]:
    """Return the encoders of a model that `attach` made, to be exported as one.

    Args:
        model: the model.
        image, text: their classes.

    Raises:
        TypeError: encoders of another kind.
        ValueError: halves of two models.
    """
    images, words = model.image_encoder, model.text_encoder
    if not isinstance(images, image) or not isinstance(words, text):
        raise TypeError(
            "export needs the encoders of attach(), got "
            f"{type(images).__name__} and {type(words).__name__}"
        )
    if images.model_name != words.model_name:
        raise ValueError(f"two models: images {images.model_name}, texts {words.model_name}")
    return images, words


def _warn(cause: str) -> None:
    warnings.warn(f"train before use: {cause}, so scores are at chance", stacklevel=4)
