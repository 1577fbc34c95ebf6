"""Conversion of rows and strings to a model's input tensors, directly or from cached features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypedDict

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import Unpack

from ascl_plugin import registry
from ascl_plugin.data.images import load_image
from ascl_plugin.data.store import FeatureStore, fill, image_key
from ascl_plugin.interfaces import (
    CountsCut,
    CountsUnknown,
    Fingerprinted,
    FromFiles,
    ImageEncoder,
    Row,
    TextEncoder,
)
from ascl_plugin.retrieval.packed import Entry, PackedFeatures
from ascl_plugin.retrieval.views import view_key, view_of
from ascl_plugin.scoring.blocks import device_of

MANY_UNKNOWN = 0.1  # share of unknown words that is warned of
MEMORY = 2**30  # default for bytes of decoded pictures that a process keeps
FEATURE_MEMORY = 2**32  # default for bytes of cached features that a process keeps


class Sharing(TypedDict, total=False):
    """Options of `data.store.fill`: a bar, and the share of this process."""

    progress: bool
    rank: int
    world_size: int


class BatchImages(Protocol):
    """Rows -> the images of a batch, as `RetrievalModel.encode_images` takes them."""

    @property
    def store(self) -> FeatureStore | None:
        """Cache of features; None if there is none."""
        ...

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return the tensors of N rows."""
        ...

    def prepare(self, rows: Sequence[Row], batch_size: int, **sharing: Unpack[Sharing]) -> None:
        """Fill the cache, or check that every row has features, before the first batch."""
        ...


class ImageInputs:
    """Rows -> `pixel_values`; for a frozen encoder with a cache, `regions` and `pooled`.

    If pictures of a batch have different numbers of regions, also `region_mask`. A row with
    `mirrored` stands for the mirror image of its picture (`MirroredRows`).

    Args:
        encoder: image encoder.
        cache_dir: root of the caches; None: encode every time.
        memory: bytes of decoded pictures that a process keeps.
        feature_memory: bytes of cached features that `pack` keeps.
        wholes: leave cached regions out, for a model that `wholes_only`.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        cache_dir: str | Path | None = None,
        memory: int = MEMORY,
        feature_memory: int = FEATURE_MEMORY,
        wholes: bool = False,
    ) -> None:
        self.encoder = encoder
        self.wholes = wholes
        self.store = _store(encoder, cache_dir)
        self.memory = memory
        self.feature_memory = feature_memory
        self._memory: dict[str, Tensor] = {}
        self._prepared: dict[str, str] = {}  # place of a picture -> its key
        self._packed: PackedFeatures | None = None

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return the tensors of N rows."""
        if self.store is None:
            return {"pixel_values": self._pixels(rows)}
        if self._packed is not None:
            keys = [self._prepared.get(_place(row), "") for row in rows]
            places = self._packed.places(keys)
            if places is not None and self.wholes:
                return {"pooled": self._packed.vectors("pooled", places)}
            if places is not None:
                regions, mask = self._packed.padded("regions", places)
                found = {"regions": regions, "pooled": self._packed.vectors("pooled", places)}
                return found if mask.all() else found | {"region_mask": mask}
        entries = [self.store[_key(row)] for row in rows]
        pooled = torch.stack([entry["pooled"] for entry in entries])
        if self.wholes:
            return {"pooled": pooled}
        regions, mask = _padded([entry["regions"] for entry in entries])
        found = {"regions": regions, "pooled": pooled}
        if not mask.all():  # a detector found fewer in some pictures
            found["region_mask"] = mask
        return found

    def prepare(self, rows: Sequence[Row], batch_size: int, **sharing: Unpack[Sharing]) -> None:
        """Encode the rows that the cache lacks; see `fill`.

        Raises:
            FileNotFoundError, ValueError: an image that does not exist or does not decode.
        """
        if self.store is None:
            return
        device = device_of(self.encoder)

        def encode(batch: list[Row]) -> list[dict[str, Tensor]]:
            features = self.encoder(self._pixels(batch).to(device))
            assert features.pooled is not None
            regions = list(features.regions)
            if features.mask is not None:
                regions = [r[real] for r, real in zip(regions, features.mask, strict=True)]
            pairs = zip(regions, features.pooled, strict=True)
            return [{"regions": r, "pooled": p} for r, p in pairs]

        places = [_place(row) for row in rows]
        keys = [_key(row) for row in rows]
        fill(self.store, rows, keys, encode, batch_size, "encoding images", **sharing)
        self._prepared |= dict(zip(places, keys, strict=True))

    def pack(self) -> None:
        """Keep the features of the prepared rows in memory, the first `feature_memory` bytes.

        Call it when the cache has the shares of all ranks.
        """
        if self.store is not None and self._prepared:
            self.store.refresh()
            keys = self._prepared.values()
            reduce = _whole if self.wholes else None
            self._packed = PackedFeatures(self.store, keys, self.feature_memory, reduce)

    def _pixels(self, rows: Sequence[Row]) -> Tensor:
        return torch.stack([self._pixels_of(row) for row in rows])

    def _pixels_of(self, row: Row) -> Tensor:
        """Decode a picture, or return it from memory: `memory` bytes of them are kept."""
        key = _key(row) if self.memory else ""
        if key in self._memory:
            return self._memory[key]
        picture = load_image(row["image"], row["image_id"])
        pixels = self.encoder.preprocess(view_of(picture, row))
        if (len(self._memory) + 1) * pixels.nbytes <= self.memory:
            self._memory[key] = pixels
        return pixels

    def __getstate__(self) -> dict[str, object]:
        """Leave out what a worker process decodes and reads for itself."""
        return {**self.__dict__, "_memory": {}, "_packed": None}


class TextInputs:
    """Strings -> `input_ids`, `attention_mask`; for a frozen encoder with a cache, its words.

    Args:
        encoder: text encoder.
        cache_dir: root of the caches; None: encode every time.
        feature_memory: bytes of cached features that `pack` keeps.
        lexical: `RetrievalModel.lexical_ids`; if not None, `lexical_ids` come with every batch.
        pool: `RetrievalModel.pool_words`; if not None, cached words come pooled, as `pooled_words`.
        words: False if the model reads pooled words alone; single ones are then left out.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        cache_dir: str | Path | None = None,
        feature_memory: int = FEATURE_MEMORY,
        lexical: Callable[[Sequence[str]], Tensor] | None = None,
        pool: Callable[[Tensor], Tensor] | None = None,
        words: bool = True,
    ) -> None:
        self.encoder = encoder
        self.lexical = lexical
        self.pool = pool
        self.words = words or pool is None
        self.own_pooled = pooled_width(encoder) is not None
        self.store = _store(encoder, cache_dir)
        self.feature_memory = feature_memory
        self._prepared: list[str] = []
        self._packed: PackedFeatures | None = None

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the tensors of T strings, padded to the longest."""
        if self.store is None:
            found = self.encoder.tokenize(list(texts))
        elif self._packed is not None and (places := self._packed.places(texts)) is not None:
            found = {}
            if self.pool is not None or self.own_pooled:
                found["pooled_words"] = self._packed.vectors("pooled_words", places)
            if self.words:
                found["words"], found["word_mask"] = self._packed.padded("words", places)
        else:
            entries, found = [self.store[text] for text in texts], {}
            pool = self.pool
            if self.own_pooled:
                found["pooled_words"] = torch.stack([entry["pooled_words"] for entry in entries])
            elif pool is not None:
                found["pooled_words"] = torch.stack([pool(entry["words"]) for entry in entries])
            if self.words:
                found["words"], found["word_mask"] = _padded([entry["words"] for entry in entries])
        return found if self.lexical is None else {**found, "lexical_ids": self.lexical(texts)}

    def count_cut(self, texts: Sequence[str]) -> int:
        """Return the number of texts that the encoder cuts; 0 if it does not know."""
        if isinstance(self.encoder, CountsCut) and texts:
            return self.encoder.count_cut(texts)
        return 0

    def say_unknown(
        self, texts: Sequence[str], of: str, say: Callable[[str], object] = print
    ) -> None:
        """Say the share of words that the encoder does not know, and warn above a tenth.

        Args:
            texts: captions; nothing is said if the encoder knows every word of any text.
            of: their name, such as "val".
            say: function that prints a line.
        """
        if not isinstance(self.encoder, CountsUnknown) or not texts:
            return
        unknown, words = self.encoder.count_unknown(texts)
        if unknown:
            line = f"{of}: {unknown / words:.1%} of {words:,} words are unknown to the text encoder"
            cure = "; another language, or other data than it was trained on?"
            say(f"warning: {line}{cure}" if unknown > MANY_UNKNOWN * words else line)

    def prepare(self, texts: Sequence[str], batch_size: int, **sharing: Unpack[Sharing]) -> None:
        """Encode the texts that the cache lacks, each string once; see `fill`."""
        if self.store is None:
            return
        device = device_of(self.encoder)

        def encode(batch: list[str]) -> list[dict[str, Tensor]]:
            tokens = {k: v.to(device) for k, v in self.encoder.tokenize(batch).items()}
            features = self.encoder(**tokens)
            masks = [slice(None)] * len(features) if features.mask is None else features.mask
            found = [{"words": w[mask]} for w, mask in zip(features.words, masks, strict=True)]
            if features.pooled is None:
                return found
            pooled = zip(found, features.pooled, strict=True)
            return [entry | {"pooled_words": whole} for entry, whole in pooled]

        self._prepared = list(dict.fromkeys([*self._prepared, *texts]))
        # texts of one length together: a batch is padded to its longest
        texts = sorted(dict.fromkeys(texts), key=len)
        fill(self.store, texts, texts, encode, batch_size, "encoding texts", **sharing)

    def pack(self) -> None:
        """Keep the features of the prepared texts in memory, the first `feature_memory` bytes.

        Call it when the cache has the shares of all ranks.
        """
        if self.store is not None and self._prepared:
            self.store.refresh()
            reduce = None if self.pool is None else self._with_pooled
            self._packed = PackedFeatures(self.store, self._prepared, self.feature_memory, reduce)

    def _with_pooled(self, entry: Entry) -> Entry:
        assert self.pool is not None
        pooled = {"pooled_words": self.pool(entry["words"].float())}
        return entry | pooled if self.words else pooled

    def __getstate__(self) -> dict[str, object]:
        """Leave out what a worker process reads for itself."""
        return {**self.__dict__, "_packed": None}


def image_inputs(
    encoder: ImageEncoder,
    cache_dir: str | Path | None = None,
    region_files: str | Path | None = None,
    pooled_files: str | Path | None = None,
    feature_memory: int = FEATURE_MEMORY,
    wholes: bool = False,
) -> BatchImages:
    """Return `ImageInputs`, or features from files if the model was trained on files.

    Args:
        encoder: the model's image encoder.
        cache_dir, feature_memory, wholes: see `ImageInputs`.
        region_files, pooled_files: for a model whose features come from files.

    Raises:
        ValueError: files for a model that encodes pictures; none for one that does not; features
            of another width than the model's.
    """
    if region_files is None:
        if isinstance(encoder, FromFiles):
            raise ValueError("the model's features come from files: --region_files says which")
        return ImageInputs(encoder, cache_dir, feature_memory=feature_memory, wholes=wholes)
    if not isinstance(encoder, FromFiles):
        raise ValueError("--region_files: the model encodes pictures, it was not trained on files")
    inputs = registry.build(
        "image_inputs", "region_files", region_files=region_files, pooled_files=pooled_files,
        num_regions=encoder.num_regions,
    )  # fmt: skip
    for name, path in (("region_dim", region_files), ("pooled_dim", pooled_files or region_files)):
        if getattr(inputs, name) != getattr(encoder, name):
            raise ValueError(
                f"{path}: {name} is {getattr(inputs, name)}, the model's {getattr(encoder, name)}"
            )
    return inputs


def pooled_width(encoder: TextEncoder) -> int | None:
    """Return the width of the embedding that a text encoder gives beside its words, or None."""
    return getattr(encoder, "pooled_dim", None)


def _whole(entry: Entry) -> Entry:
    return {"pooled": entry["pooled"]}


def _padded(items: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return N tensors (any, D) as (N, places, D), and their mask; one place at least."""
    counts = torch.tensor([len(item) for item in items])
    values = pad_sequence(items, batch_first=True)
    if not counts.any():  # only texts without a word
        values = torch.nn.functional.pad(values, (0, 0, 0, 1))
    return values, torch.arange(values.shape[1]) < counts[:, None]


def _store(
    encoder: ImageEncoder | TextEncoder, cache_dir: str | Path | None
) -> FeatureStore | None:
    if cache_dir is None or not encoder.frozen:
        return None
    if not isinstance(encoder, Fingerprinted):
        raise TypeError(f"{type(encoder).__name__} is frozen; to be cached it needs fingerprint()")
    return FeatureStore(cache_dir, encoder.fingerprint())


def _key(row: Row) -> str:
    return view_key(image_key(row["image"], row["image_id"]), row)


def _place(row: Row) -> str:
    """Return a key that does not look at the file: in one run, a path is one picture."""
    image = row["image"] or {}
    if image.get("bytes") is not None or image.get("path") is None:
        return _key(row)
    return view_key(image["path"], row)
