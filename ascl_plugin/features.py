"""Features of images and of texts, as every encoder returns and every scorer takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

F = TypeVar("F", "ImageFeatures", "TextFeatures")
Kind = TypeVar("Kind", bound="Items")


class Items:
    """A frozen dataclass of tensors, and None, whose first axis counts the same items."""

    def __getitem__(self: Kind, index: slice | Tensor) -> Kind:
        return self._map(lambda x: x[index])

    def to(self: Kind, device: torch.device | str) -> Kind:
        """Return the same items on `device`."""
        return self._map(lambda x: x.to(device))

    def split(self: Kind, size: int | list[int]) -> list[Kind]:
        """Return the items `size` at a time, the last part may be shorter; or in parts of sizes."""
        values = {name: x.split(size) for name, x in self._tensors().items()}
        parts = zip(*values.values(), strict=True)
        return [self._with(dict(zip(values, part, strict=True))) for part in parts]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(x.nbytes for x in self._tensors().values())

    def _tensors(self) -> dict[str, Tensor]:
        assert is_dataclass(self)
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: x for name, x in values.items() if x is not None}

    def _with(self: Kind, tensors: dict[str, Tensor]) -> Kind:
        assert is_dataclass(self)
        return replace(self, **tensors)

    def _map(self: Kind, function: Callable[[Tensor], Tensor]) -> Kind:
        return self._with({name: function(x) for name, x in self._tensors().items()})


def wide(x: Tensor) -> Tensor:
    """Return x in fp32 or wider: softmax, norms and sums are not taken in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def mean_of_places(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean (N, D) of (N, places, D) over the real places."""
    if mask is None:
        return values.mean(1)
    return (values * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)


def check_kind(name: str, items: object, *kinds: type) -> None:
    """Raise TypeError unless the argument `name` is an instance of one of the kinds."""
    if not isinstance(items, kinds):
        shape = getattr(items, "shape", None)
        got = type(items).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")
        raise TypeError(f"{name} must be {' or '.join(k.__name__ for k in kinds)}, got {got}")


@dataclass(frozen=True)
class ImageFeatures(Items):
    """Features of I images.

    Args:
        regions: (I, K, D) region features.
        mask: (I, K) bool, or integers, True where a region is real; None if all are.
        pooled: (I, D) whole-image feature; None if the scorer needs none.
    """

    regions: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None

    def __post_init__(self) -> None:
        _check("ImageFeatures", "regions", self.regions, _with_bools(self))
        _check_pooled("ImageFeatures", "images", self.pooled, len(self.regions))

    def __len__(self) -> int:
        return len(self.regions)


@dataclass(frozen=True)
class TextFeatures(Items):
    """Features of T texts.

    Args:
        words: (T, L, D) word features.
        mask: (T, L) bool, or integers as a tokenizer gives them, True where a word is real; None if
            all are.
        pooled: (T, D) whole-text feature; None: the mean word stands in (`whole_texts`).
    """

    words: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None

    def __post_init__(self) -> None:
        _check("TextFeatures", "words", self.words, _with_bools(self))
        _check_pooled("TextFeatures", "texts", self.pooled, len(self.words))

    def __len__(self) -> int:
        return len(self.words)

    @property
    def ends(self) -> Tensor:
        """(T,) number of places up to each text's last real word, padding among them included."""
        count, longest = self.words.shape[:2]
        if self.mask is None:
            return torch.full((count,), longest, device=self.words.device)
        return (self.mask * torch.arange(1, longest + 1, device=self.mask.device)).amax(1)


def whole_texts(texts: TextFeatures) -> Tensor:
    """Return (T, D), fp32 or wider: the pooled feature, or the mean of the real words."""
    if texts.pooled is None:
        return mean_of_places(wide(texts.words), texts.mask)
    return wide(texts.pooled)


def check_features(images: object, texts: object) -> None:
    """Raise TypeError unless the arguments `images` and `texts` are features."""
    check_kind("images", images, ImageFeatures)
    check_kind("texts", texts, TextFeatures)


def _with_bools(items: ImageFeatures | TextFeatures) -> Tensor | None:
    """Return the mask, made bool if it came as integers."""
    if isinstance(items.mask, Tensor) and items.mask.dtype in (torch.int64, torch.int32):
        object.__setattr__(items, "mask", items.mask != 0)
    return items.mask


def _check(owner: str, name: str, values: Tensor, mask: Tensor | None) -> None:
    check_kind(f"{owner}: {name}", values, Tensor)
    if values.ndim != 3:
        raise ValueError(
            f"{owner}: {name} must be (items, {name}, width), got shape {tuple(values.shape)}"
        )
    if not values.shape[1]:
        fix = "K=0; pass one masked region for an image"
        if name == "words":
            fix = "L=0; pass one masked word for a text"
        raise ValueError(f"{owner}: {name} has {fix} without any.")
    if mask is None:
        return
    check_kind(f"{owner}: mask", mask, Tensor)
    if mask.dtype != torch.bool:
        raise TypeError(f"{owner}: mask must be bool (True = real), got {mask.dtype}")
    if mask.shape != values.shape[:2]:
        raise ValueError(
            f"{owner}: mask has shape {tuple(mask.shape)}, {name} need {tuple(values.shape[:2])}"
        )


def _check_pooled(owner: str, items: str, pooled: Tensor | None, count: int) -> None:
    if pooled is None:
        return
    check_kind(f"{owner}: pooled", pooled, Tensor)
    if pooled.ndim != 2:
        raise ValueError(
            f"{owner}: pooled must be ({items}, width), got shape {tuple(pooled.shape)}"
        )
    if len(pooled) != count:
        raise ValueError(f"{owner}: pooled has {len(pooled)} rows for {count} {items}")


def concatenate(parts: Sequence[F]) -> F:
    """Return the items of all parts in one, padded to the longest, with a mask if one is needed.

    Raises:
        ValueError: no parts, or `pooled` in some parts alone.
    """
    if not parts:
        raise ValueError("concatenate: got no features")
    kind = type(parts[0])
    name = "regions" if kind is ImageFeatures else "words"
    values: list[Tensor] = [getattr(part, name) for part in parts]
    length = max(value.shape[1] for value in values)
    tensors = {name: torch.cat([_padded(value, length, (0, 0)) for value in values])}
    if any(p.mask is not None or v.shape[1] != length for p, v in zip(parts, values, strict=True)):
        masks = [
            v.new_ones(v.shape[:2], dtype=torch.bool) if p.mask is None else p.mask
            for p, v in zip(parts, values, strict=True)
        ]
        tensors["mask"] = torch.cat([_padded(mask, length) for mask in masks])
    pooled = [part.pooled for part in parts if part.pooled is not None]
    if pooled:
        if len(pooled) != len(parts):
            raise ValueError(
                f"concatenate: {len(pooled)} of {len(parts)} parts have pooled; give all or none"
            )
        tensors["pooled"] = torch.cat(pooled)
    return kind(**tensors)


def concatenate_places(parts: Sequence[TextFeatures]) -> TextFeatures:
    """Return T texts, each with the words of its texts in all parts, and without `pooled`."""
    masks = [
        x.words.new_ones(x.words.shape[:2], dtype=torch.bool) if x.mask is None else x.mask
        for x in parts
    ]
    return TextFeatures(torch.cat([x.words for x in parts], 1), torch.cat(masks, 1))


def _padded(places: Tensor, length: int, rest: tuple[int, ...] = ()) -> Tensor:
    return torch.nn.functional.pad(places, (*rest, 0, length - places.shape[1]))
