"""Rows and strings into a model's input tensors, straight or from a cache of frozen features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ascl_plugin import registry
from ascl_plugin.data.images import load_image
from ascl_plugin.data.store import FeatureStore, fill, image_key

Row = Mapping[str, Any]
MEMORY = 2**30  # bytes of decoded pictures kept by a process, where nothing else is said


class ImageInputs:
    """Rows -> `pixel_values`; of a frozen encoder with a cache, `regions`, `pooled`.

    With them `region_mask`, where pictures of a batch have different numbers of regions.

    Args:
        encoder: has `preprocess`, and if frozen `fingerprint`.
        cache_dir: root of the caches; None encodes every time.
        memory: bytes of decoded pictures kept by a process.
    """

    def __init__(
        self, encoder: Any, cache_dir: str | Path | None = None, memory: int = MEMORY
    ) -> None:
        self.encoder = encoder
        self.store = _store(encoder, cache_dir)
        self.memory = memory
        self._memory: dict[str, Tensor] = {}

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Tensors of N rows."""
        if self.store is None:
            return {"pixel_values": self._pixels(rows)}
        entries = [self.store[_key(row)] for row in rows]
        regions, mask = _padded([entry["regions"] for entry in entries])
        found = {"regions": regions, "pooled": torch.stack([entry["pooled"] for entry in entries])}
        if not mask.all():  # of a detector that finds more in some pictures
            found["region_mask"] = mask
        return found

    def prepare(self, rows: Sequence[Row], batch_size: int, **sharing: Any) -> None:
        """Encodes what the cache lacks of `rows`; `sharing` is `fill`'s progress, rank, world_size.

        Raises:
            FileNotFoundError, ValueError: an image that is not there or does not decode.
        """
        if self.store is None:
            return
        device = device_of(self.encoder)

        def encode(batch: list[Row]) -> list[dict[str, Tensor]]:
            features = self.encoder(self._pixels(batch).to(device))
            regions = features.regions
            if features.mask is not None:
                regions = [r[real] for r, real in zip(regions, features.mask, strict=True)]
            pairs = zip(regions, features.pooled, strict=True)
            return [{"regions": r, "pooled": p} for r, p in pairs]

        keys = [_key(row) for row in rows]
        fill(self.store, rows, keys, encode, batch_size, "encoding images", **sharing)

    def _pixels(self, rows: Sequence[Row]) -> Tensor:
        return torch.stack([self._pixels_of(row) for row in rows])

    def _pixels_of(self, row: Row) -> Tensor:
        """Decoded once an image, as long as all fit in `memory` bytes."""
        if not self.memory:
            return self.encoder.preprocess(load_image(row["image"], row["image_id"]))
        key = _key(row)
        if key in self._memory:
            return self._memory[key]
        pixels = self.encoder.preprocess(load_image(row["image"], row["image_id"]))
        if (len(self._memory) + 1) * pixels.nbytes <= self.memory:
            self._memory[key] = pixels
        return pixels

    def __getstate__(self) -> dict[str, Any]:
        """Without the pictures: a worker process decodes its own."""
        return {**self.__dict__, "_memory": {}}


class TextInputs:
    """Strings -> `input_ids`, `attention_mask`; of a frozen encoder with a cache, its words.

    Args:
        encoder: has `tokenize`, and if frozen `fingerprint`.
        cache_dir: root of the caches; None encodes every time.
    """

    def __init__(self, encoder: Any, cache_dir: str | Path | None = None) -> None:
        self.encoder = encoder
        self.store = _store(encoder, cache_dir)

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Tensors of T strings, padded to the longest."""
        if self.store is None:
            return self.encoder.tokenize(list(texts))
        words, mask = _padded([self.store[text]["words"] for text in texts])
        return {"words": words, "word_mask": mask}

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of `texts` the encoder cuts; 0 of one that does not tell."""
        count = getattr(self.encoder, "count_cut", None)
        return count(texts) if count and texts else 0

    def prepare(self, texts: Sequence[str], batch_size: int, **sharing: Any) -> None:
        """Encodes what the cache lacks of `texts`, each string once."""
        if self.store is None:
            return
        device = device_of(self.encoder)

        def encode(batch: list[str]) -> list[dict[str, Tensor]]:
            tokens = {k: v.to(device) for k, v in self.encoder.tokenize(batch).items()}
            features = self.encoder(**tokens)
            pairs = zip(features.words, features.mask, strict=True)
            return [{"words": words[mask]} for words, mask in pairs]

        # texts of a length together: a batch is as long as its longest
        texts = sorted(dict.fromkeys(texts), key=len)
        fill(self.store, texts, texts, encode, batch_size, "encoding texts", **sharing)


def image_inputs(
    encoder: Any,
    cache_dir: str | Path | None = None,
    region_files: str | Path | None = None,
    pooled_files: str | Path | None = None,
) -> Any:
    """What turns rows into the images of a batch: `ImageInputs`, or features from files.

    Args:
        encoder: of the model.
        cache_dir: as of `ImageInputs`.
        region_files, pooled_files: for a model whose features come from files.

    Raises:
        ValueError: files for a model that encodes pictures; none for one that does not; features
            of another width than the model's.
    """
    from_files = getattr(encoder, "from_files", False)
    if region_files is None:
        if from_files:
            raise ValueError("the model's features come from files: --region_files says which")
        return ImageInputs(encoder, cache_dir)
    if not from_files:
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


def device_of(module: nn.Module) -> torch.device:
    """Where its tensors are; the CPU, of a module that has none."""
    first = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def _padded(items: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(N, places, D) of N tensors (any, D), and the mask (N, places); one place at least."""
    counts = torch.tensor([len(item) for item in items])
    values = pad_sequence(items, batch_first=True)
    if not counts.any():  # texts without a word alone
        values = torch.nn.functional.pad(values, (0, 0, 0, 1))
    return values, torch.arange(values.shape[1]) < counts[:, None]


def _store(encoder: Any, cache_dir: str | Path | None) -> FeatureStore | None:
    if cache_dir is None or not encoder.frozen:
        return None
    return FeatureStore(cache_dir, encoder.fingerprint())


def _key(row: Row) -> str:
    return image_key(row["image"], row["image_id"])
