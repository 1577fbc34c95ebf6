"""The two things that flow between rooms: what an image is, and what a text is, to a scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", "ImageFeatures", "TextFeatures")
Kind = TypeVar("Kind", bound="Items")


class Items:
    """A frozen dataclass of tensors, and None, whose first axis counts the same items."""

    def __getitem__(self: Kind, index: slice | Tensor) -> Kind:
        return self._map(lambda x: x[index])

    def to(self: Kind, device: torch.device | str) -> Kind:
        """The same items on `device`."""
        return self._map(lambda x: x.to(device))

    def split(self: Kind, size: int) -> list[Kind]:
        """The items `size` at a time; the last part may be shorter."""
        values = {name: x.split(size) for name, x in self._tensors().items()}
        parts = zip(*values.values(), strict=True)
        named: Any = self
        return [replace(named, **dict(zip(values, part, strict=True))) for part in parts]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(x.nbytes for x in self._tensors().values())

    def _tensors(self) -> dict[str, Tensor]:
        named: Any = self
        values = {f.name: getattr(self, f.name) for f in fields(named)}
        return {name: x for name, x in values.items() if x is not None}

    def _map(self: Kind, function: Callable[[Tensor], Tensor]) -> Kind:
        named: Any = self
        return replace(named, **{name: function(x) for name, x in self._tensors().items()})


def wide(x: Tensor) -> Tensor:
    """At least fp32: softmax, norms and sums are not taken in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def mean_of_places(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean (N, D) of (N, places, D) over the places that are real."""
    if mask is None:
        return values.mean(1)
    return (values * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)


@dataclass(frozen=True)
class ImageFeatures(Items):
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


@dataclass(frozen=True)
class TextFeatures(Items):
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

    @property
    def ends(self) -> Tensor:
        """(T,) places of each text up to its last real word; padding may stand among them."""
        count, longest = self.words.shape[:2]
        if self.mask is None:
            return torch.full((count,), longest, device=self.words.device)
        return (self.mask * torch.arange(1, longest + 1, device=self.mask.device)).amax(1)


def check_features(images: object, texts: object) -> None:
    """Refuse anything but features.

    Raises:
        TypeError: images are no `ImageFeatures`, or texts no `TextFeatures`.
    """
    for name, value, kind, of in (
        ("images", images, ImageFeatures, "regions (I, K, D)"),
        ("texts", texts, TextFeatures, "words (T, L, D)"),
    ):
        if not isinstance(value, kind):
            shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
            raise TypeError(
                f"{name} must be {kind.__name__}, made of a tensor of {of}; got "
                f"{type(value).__name__}{shape}"
            )


def _check(owner: str, name: str, values: Tensor, mask: Tensor | None) -> None:
    if values.ndim != 3:
        raise ValueError(
            f"{owner}: {name} must be (items, {name}, width), got shape {tuple(values.shape)}"
        )
    if not values.shape[1]:
        raise ValueError(
            f"{owner}: {name} of no places, shape {tuple(values.shape)}; an item without any has "
            "one that is masked"
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
