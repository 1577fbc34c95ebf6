"""The options of the re-ranking methods: their types, and checks of their values."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.scores import Array, as_tensor, check_scores


class Method(Protocol):
    """A re-ranking method: a function whose options are keyword-only, each with a default.

    It takes scores (I, T), finite and not to be modified, and returns the new scores of both
    directions, (I, T) each. `rerank` passes it the options that its caller gave; arrays arrive as
    tensors on the device of the scores.
    """

    def __call__(self, scores: Tensor, /, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Return both directions re-ranked."""


class MethodOptions(TypedDict, total=False):
    """The keyword arguments of `rerank` that have no position, see there."""

    mix: float | None
    caption_groups: Array | Iterable[int] | None
    temperature: float | None
    neighbors: int | None
    alpha: float | None
    activation_k: int | None
    k1: int | None
    k2: int | None
    initial_weight: float | None
    bank_i2t: Array | None
    bank_t2i: Array | None
    image_embeddings: Array | None


class RerankOptions(MethodOptions, total=False):
    """All keyword arguments of `rerank`."""

    method: str | Method
    k: int | None
    reverse_k: int | None
    text_neighbors: int | None
    text_embeddings: Array | None


# name -> its axes, which of them must match an axis of sim, and of which items that is
_AXES = {
    "image_embeddings": ("(images, width)", 0, "images"),
    "text_embeddings": ("(texts, width)", 0, "texts"),
    "bank_i2t": ("(images of the bank, texts)", 1, "texts"),
    "bank_t2i": ("(images, texts of the bank)", 0, "images"),
}
ARRAYS = (*_AXES, "caption_groups")


def options_of(method: Callable[..., object]) -> dict[str, Any]:
    """Return the keyword-only arguments of a method or correction and their defaults, in order."""
    parameters = inspect.signature(method).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_known(name: str, method: Callable[..., object], given: Iterable[str]) -> None:
    """Raise TypeError, with the method's options, at an option that it does not have."""
    known = options_of(method)
    for option in given:
        if option not in known:
            raise TypeError(
                f"rerank: method {name!r} has no option {option!r}; "
                f"it has {', '.join(known) or 'none'}"
            )


def check_count(name: str, value: object) -> None:
    """Raise ValueError at a value that is not an integer of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"rerank: {name} must be an integer of at least 1, got {value!r}")


def check_number(
    name: str,
    value: object,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
) -> None:
    """Raise ValueError at a value that is not a finite number within the bounds."""
    if (
        isinstance(value, Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and above < float(value)
        and at_least <= float(value) <= at_most
    ):
        return
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("above", above), ("at least", at_least), ("at most", at_most))
        if math.isfinite(bound)
    ]
    raise ValueError(f"rerank: {name} must be a number {' and '.join(bounds)}, got {value!r}")


def array_option(name: str, values: object, scores: Tensor) -> Tensor:
    """Return one of the options `ARRAYS` as a tensor on the device of the scores.

    Raises:
        TypeError: not an array, or not of floats (for caption_groups: of integers).
        ValueError: a shape that does not fit the scores, NaN or infinity.
    """
    images, texts = scores.shape
    if name == "caption_groups":
        return _groups(values, texts).to(scores.device)
    axes, axis, items = _AXES[name]
    wanted = texts if items == "texts" else images
    tensor = as_tensor(values, name, axes)
    if tensor.shape[axis] != wanted:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, sim has {wanted} {items}: "
            f"it must be {axes}, with one {('row', 'column')[axis]} for each"
        )
    check_scores(tensor, name)
    return tensor.to(scores.device)


def _groups(values: object, texts: int) -> Tensor:
    groups = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    if groups.dtype.is_floating_point or groups.dtype.is_complex or groups.dtype == torch.bool:
        raise TypeError(f"caption_groups must hold integers, got {groups.dtype}")
    if tuple(groups.shape) != (texts,):
        raise ValueError(
            f"caption_groups has shape {tuple(groups.shape)}, sim has {texts} texts: "
            "it needs one integer for each"
        )
    return groups.long()
