"""The two things that flow between rooms: what an image is, and what a text is, to a scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", "ImageFeatures", "TextFeatures")


@dataclass(frozen=True)
class ImageFeatures:
    """Features of I images.

    Args:
        regions: (I, K, D) region features.
        mask: (I, K) bool, True where a region is real; None when all are.
        pooled: (I, D) whole-image feature; None where a scorer needs none.
    """

    regions: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None

    def __post_init__(self) -> None:
        _check("ImageFeatures", "regions", self.regions, self.mask)
        if self.pooled is not None and len(self.pooled) != len(self.regions):
            raise ValueError(
                f"ImageFeatures: pooled has {len(self.pooled)} rows for {len(self.regions)} images"
            )

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, index: slice | Tensor) -> ImageFeatures:
        return _map(self, lambda x: x[index])

    def to(self, device: torch.device | str) -> ImageFeatures:
        """The same features on `device`."""
        return _map(self, lambda x: x.to(device))


@dataclass(frozen=True)
class TextFeatures:
    """Features of T texts.

    Args:
        words: (T, L, D) word features.
        mask: (T, L) bool, True where a word is real; None when all are.
    """

    words: Tensor
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        _check("TextFeatures", "words", self.words, self.mask)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: slice | Tensor) -> TextFeatures:
        return _map(self, lambda x: x[index])

    def to(self, device: torch.device | str) -> TextFeatures:
        """The same features on `device`."""
        return _map(self, lambda x: x.to(device))


def _map(features: F, function: Callable[[Tensor], Tensor]) -> F:
    values: dict[str, Any] = {f.name: getattr(features, f.name) for f in fields(features)}
    for name, value in values.items():
        values[name] = None if value is None else function(value)
    return type(features)(**values)


def _check(owner: str, name: str, values: Tensor, mask: Tensor | None) -> None:
    if values.ndim != 3:
        raise ValueError(
            f"{owner}: {name} must be (items, {name}, width), got shape {tuple(values.shape)}"
        )
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"{owner}: mask must be bool (True = real), got {mask.dtype}")
    if mask.shape != values.shape[:2]:
        raise ValueError(
            f"{owner}: mask has shape {tuple(mask.shape)}, {name} need {tuple(values.shape[:2])}"
        )


def concatenate(parts: Sequence[F]) -> F:
    """The items of all parts in one, padded to the longest; a mask appears where it is needed."""
    if not parts:
        raise ValueError("concatenate: got no features")
    name = "regions" if isinstance(parts[0], ImageFeatures) else "words"
    length = max(getattr(p, name).shape[1] for p in parts)
    uneven = any(getattr(p, name).shape[1] != length or p.mask is not None for p in parts)
    values, masks = [], []
    for part in parts:
        value = getattr(part, name)
        short = length - value.shape[1]
        mask = value.new_ones(value.shape[:2], dtype=torch.bool) if part.mask is None else part.mask
        values.append(torch.nn.functional.pad(value, (0, 0, 0, short)))
        masks.append(torch.nn.functional.pad(mask, (0, short)))
    joined: dict[str, Any] = {name: torch.cat(values)}
    joined["mask"] = torch.cat(masks) if uneven else None
    if getattr(parts[0], "pooled", None) is not None:
        whole: list[Any] = [getattr(part, "pooled", None) for part in parts]
        joined["pooled"] = torch.cat(whole)
    return type(parts[0])(**joined)
