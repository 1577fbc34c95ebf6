"""Protocols that the rooms of the library share: encoders, scorers, rows of a split.

Any object with these members will do; nothing has to inherit from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Union, overload, runtime_checkable

import numpy as np
from torch import Tensor, nn

from ascl_plugin.features import ImageFeatures, Items, TextFeatures

if TYPE_CHECKING:
    from PIL.Image import Image

#: One image with its captions, by column name; see `ascl_plugin.data.rows`.
Row = Mapping[str, Any]

#: Rows of a split, or some of them in a list.
AnyRows = Union["Rows", Sequence[Row]]

#: Options by name, as configurations hold them.
NamedOptions = Mapping[str, Any]

#: A component as configurations and saved models name it: ``{"name": ..., **options}``.
ComponentSpec = Mapping[str, object]


class Rows(Protocol):
    """Rows of a split, as `datasets.Dataset` holds them."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Row]: ...

    @overload
    def __getitem__(self, key: int) -> Row: ...

    @overload
    def __getitem__(self, key: str) -> Sequence[Any]: ...

    @overload
    def __getitem__(self, key: slice | Sequence[int]) -> Mapping[str, list[Any]]: ...


class Weights(Protocol):
    """The members of `nn.Module` that the library needs of an encoder."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]: ...


class ImageEncoder(Weights, Protocol):
    """A module that encodes images: pixel_values (I, ...) -> `ImageFeatures` of I images.

    Attributes:
        region_dim, pooled_dim: widths of the two outputs.
        frozen: True if its output depends on its input alone, so that features can be cached; it
            then is `Fingerprinted` too.
    """

    @property
    def region_dim(self) -> int: ...

    @property
    def pooled_dim(self) -> int: ...

    @property
    def frozen(self) -> bool: ...

    def preprocess(self, picture: Image) -> Tensor:
        """Return the pixels of a picture; the pixels of a batch are stacked."""
        ...

    def __call__(self, pixel_values: Tensor, /) -> ImageFeatures: ...


class TextEncoder(Weights, Protocol):
    """A module that encodes texts: input_ids, attention_mask (T, L) -> `TextFeatures` of T texts.

    Attributes:
        word_dim: width of a word.
        frozen: see `ImageEncoder`.
    """

    @property
    def word_dim(self) -> int: ...

    @property
    def frozen(self) -> bool: ...

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask` of T strings, padded to the longest."""
        ...

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures: ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A frozen encoder that names itself: caches of its features are kept apart by this."""

    def fingerprint(self) -> Mapping[str, object]:
        """Return JSON that differs whenever the encoder's output can differ."""
        ...


@runtime_checkable
class FromFiles(Protocol):
    """A stand-in for an image encoder: the model's features come from files."""

    from_files: bool
    num_regions: int
    region_dim: int
    pooled_dim: int


@runtime_checkable
class CountsCut(Protocol):
    """A text encoder that knows which texts it cuts."""

    def count_cut(self, texts: Sequence[str]) -> int:
        """Return the number of texts that are longer than the encoder reads."""
        ...


@runtime_checkable
class CountsUnknown(Protocol):
    """A text encoder of a vocabulary, which knows the words that are not in it."""

    def count_unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        """Return the number of words (tokens) without a place in the vocabulary, and of all."""
        ...


class Scorer(Protocol):
    """A function, or module, that scores I images against T texts: (I, T), higher = nearer."""

    def __call__(self, images: ImageFeatures, texts: TextFeatures, /) -> Tensor: ...


@runtime_checkable
class PreparingScorer(Protocol):
    """A scorer that takes prepared items, computed once for all scores, in place of features."""

    def prepare_images(self, images: ImageFeatures) -> Items:
        """Return everything that scores need of the images."""
        ...

    def prepare_texts(self, texts: TextFeatures) -> Items:
        """Return everything that scores need of the texts."""
        ...

    def __call__(self, images: Any, texts: Any, /) -> Tensor: ...


class HasFusion(Protocol):
    """A model whose `fusion` scores the features it encodes."""

    @property
    def fusion(self) -> Scorer: ...


class VectorIndex(Protocol):
    """The members of a faiss index that a search needs: its size, its width, the nearest ids.

    `search` returns scores and ids (Q, k); id -1 marks an empty slot.
    """

    @property
    def ntotal(self) -> int: ...

    @property
    def d(self) -> int: ...

    def add(self, vectors: np.ndarray, /) -> None: ...

    def search(self, queries: np.ndarray, k: int, /) -> tuple[np.ndarray, np.ndarray]: ...


class SplitEvaluator(Protocol):
    """A model that encodes and scores rows of a split, such as `retrieval.evaluator.Evaluator`."""

    @property
    def model(self) -> HasFusion: ...

    def encode_images(self, rows: AnyRows) -> ImageFeatures:
        """Return the features of the rows' images."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Return the features of the texts."""
        ...

    def score(self, rows: AnyRows, texts: Sequence[str]) -> Tensor:
        """Return the scores (I, T) of all rows with all texts."""
        ...

    def pairs(
        self,
        rows: AnyRows,
        texts: Sequence[str],
        index: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the scores (T,) of text t with row index[t], by default row t."""
        ...
