"""The options of a re-ranking method: which it has, and what their values may be."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.scores import Array, as_tensor, check_scores

ARRAYS = ("image_embeddings", "text_embeddings", "bank_i2t", "bank_t2i", "caption_groups")


def options_of(method: Callable[..., Any]) -> list[str]:
    """Names of the options of a method: its keyword-only arguments."""
    parameters = inspect.signature(method).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def select_options(
    name: str,
    method: Callable[..., Any],
    shared: Mapping[str, Any],
    defaults: Mapping[str, Any],
    further: Mapping[str, Any],
) -> dict[str, Any]:
    """What the method is to be called with.

    Args:
        name: of the method, for messages.
        method: its function.
        shared: options that every call has, whether its method knows them or not.
        defaults: of the shared ones; one left at its default is dropped where it is not known.
        further: options of this call alone.

    Raises:
        TypeError: an option that the method does not have.
    """
    known = options_of(method)
    unknown = [option for option in further if option not in known]
    unknown += [
        option
        for option, value in shared.items()
        if option not in known and not (value is defaults[option] or _same(value, defaults[option]))
    ]
    if unknown:
        raise TypeError(
            f"rerank: method {name!r} has no option {unknown[0]!r}; "
            f"it has {', '.join(known) or 'none'}"
        )
    return {option: value for option, value in {**shared, **further}.items() if option in known}


def _same(value: Any, default: Any) -> bool:
    return isinstance(value, Real) and isinstance(default, Real) and value == default


def check_count(name: str, value: object) -> None:
    """Refuse what is no integer from 1 on.

    Raises:
        ValueError: naming the option.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"rerank: {name} must be an integer of at least 1, got {value!r}")


def check_number(
    name: str,
    value: object,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
) -> None:
    """Refuse what is no finite number within the bounds.

    Raises:
        ValueError: naming the option.
    """
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


def array_option(name: str, values: Any, scores: Tensor) -> Tensor:
    """An option that is an array, as a tensor on the device of the scores.

    Args:
        name: image_embeddings (I, E), text_embeddings (T, E), bank_i2t (B, T), bank_t2i (I, B) or
            caption_groups (T,).
        values: what was given.
        scores: (I, T).

    Raises:
        TypeError: no array, or not of floats (integers for caption_groups).
        ValueError: of another shape, or not finite.
    """
    images, texts = scores.shape
    if name == "caption_groups":
        return _groups(values, texts).to(scores.device)
    axes, axis = {
        "image_embeddings": ("(images, width)", 0),
        "text_embeddings": ("(texts, width)", 0),
        "bank_i2t": ("(images of the bank, texts)", 1),
        "bank_t2i": ("(images, texts of the bank)", 0),
    }[name]
    what, wanted = (
        ("texts", texts) if name in ("text_embeddings", "bank_i2t") else ("images", images)
    )
    tensor = as_tensor(values, name, axes)
    if tensor.shape[axis] != wanted:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, sim has {wanted} {what}: "
            f"it must be {axes}, with one {('row', 'column')[axis]} for each"
        )
    check_scores(tensor, name)
    return tensor.to(scores.device)


def _groups(values: Array, texts: int) -> Tensor:
    groups = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    if groups.dtype.is_floating_point or groups.dtype.is_complex or groups.dtype == torch.bool:
        raise TypeError(f"caption_groups must hold integers, got {groups.dtype}")
    if tuple(groups.shape) != (texts,):
        raise ValueError(
            f"caption_groups has shape {tuple(groups.shape)}, sim has {texts} texts: "
            "it needs one integer for each"
        )
    return groups.long()
