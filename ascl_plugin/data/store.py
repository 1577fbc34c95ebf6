"""Outputs of frozen encoders on disk: computed once, then memory-mapped.

A store is a folder ``<root>/<hash of spec and dtype>/`` with ``spec.json`` and any number of shards
``shard-<hash of keys>.safetensors`` (`ascl_plugin.data.store_shard`). An entry's checksum is
compared when a process first reads it. Shards are written aside and moved into place: several
processes may fill one store, and a killed one leaves nothing half done.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ascl_plugin.data.store_shard import Entry, Shard, write_shard
from ascl_plugin.disk import write_text
from ascl_plugin.interfaces import Row

try:
    from tqdm import tqdm
except ImportError as error:
    raise ImportError('the feature store needs tqdm: pip install "ascl-plugin[recipes]"') from error

Item = TypeVar("Item")

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class FeatureStore:
    """A dictionary on disk from strings to dicts of float tensors.

    No file stays open: shards are mapped, and a copy sent to a worker process maps them anew.

    Args:
        folder: root of all stores; made when missing.
        spec: JSON of everything that the features depend on (an encoder's `fingerprint()`); each
            spec has a sub-folder.
        dtype: type of the numbers on disk: "float16", "bfloat16" or "float32".

    Raises:
        TypeError: a spec that is not JSON.
        ValueError: an unknown dtype; a shard that is cut short or damaged.
    """

    def __init__(self, folder: str | Path, spec: Mapping[str, object], dtype: str = "float16"):
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        try:
            text = json.dumps({"spec": spec, "dtype": dtype}, sort_keys=True, indent=2)
        except TypeError as error:
            raise TypeError(f"the spec of a feature store must be JSON: {error}") from error
        self.dtype = dtype
        self.path = Path(folder) / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        if not (self.path / "spec.json").is_file():  # a full cache may lie on a read-only disk
            write_text(self.path / "spec.json", text, shared=True)
        self._open()

    def _open(self) -> None:
        self._shards: dict[str, Shard] = {}  # by file name
        self._entries: dict[bytes, tuple[Shard, int]] = {}  # hashed key -> shard, entry
        self.refresh()

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()

    def refresh(self) -> None:
        """Map the shards that other processes wrote since.

        Raises:
            ValueError: a shard that is cut short or damaged; the message names the file.
        """
        for path in sorted(self.path.glob("shard-*.safetensors")):
            self._map(path)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return _digest(key) in self._entries

    def __getitem__(self, key: str) -> dict[str, Tensor]:
        """Return copies of the entry's tensors by name, in float32; see `stored`."""
        found = self.stored(key)
        return {name: rows.to(torch.float32, copy=True) for name, rows in found.items()}

    def stored(self, key: str) -> dict[str, Tensor]:
        """Return the entry's tensors by name as they are on disk, mapped: not to be written to.

        Raises:
            KeyError: no such entry.
            ValueError: its numbers are not those written; the message names the file.
        """
        try:
            shard, entry = self._entries[_digest(key)]
        except KeyError:
            raise KeyError(f"{self.path}: no features for {key[:200]!r}") from None
        return shard.entry(entry, key)

    def add(self, entries: Sequence[tuple[str, Entry]]) -> None:
        """Write keys and their tensors as one shard; none, if there are no entries.

        Raises:
            ValueError, OSError: as `write_shard`.
        """
        if not entries:
            return
        keys = b"".join(_digest(key) for key, _ in entries)
        name = hashlib.blake2b(keys, digest_size=8).hexdigest()
        path = self.path / f"shard-{name}.safetensors"
        write_shard(path, keys, entries, DTYPES[self.dtype])
        self._map(path)

    def _map(self, path: Path) -> None:
        if path.name not in self._shards:
            shard = self._shards[path.name] = Shard(path)
            for entry, key in enumerate(shard.keys):
                self._entries[key] = shard, entry


def fill(
    store: FeatureStore,
    items: Sequence[Item],
    keys: Sequence[str],
    encode: Callable[[list[Item]], Sequence[Entry]],
    batch_size: int,
    description: str,
    progress: bool = True,
    shard_entries: int = 2048,
    rank: int = 0,
    world_size: int = 1,
) -> int:
    """Encode the items that `store` lacks; stopped and started again, go on from there.

    A rank takes every world_size-th of the distinct keys, whatever the others have stored by then;
    wait for all of them, then `store.refresh()`.

    Args:
        store: the store to fill.
        items: N inputs of `encode`, indexed one by one.
        keys: their N keys.
        encode: a list of items -> as many dicts of float tensors.
        batch_size: items in one call of `encode`, at most.
        description: text of the progress bar, which rank 0 shows.
        progress: show it.
        shard_entries: entries after which a shard is written, which a kill can lose.
        rank, world_size: number of this process, and of all.

    Returns:
        Number of entries that this rank encoded.

    Raises:
        ValueError: not as many keys as items, or outputs as inputs.
    """
    if len(items) != len(keys):
        raise ValueError(f"{description}: {len(items)} items, {len(keys)} keys")
    first: dict[str, int] = {}
    for position, key in enumerate(keys):
        first.setdefault(key, position)
    # shared out before looking at the store, which another process may be adding to right now
    mine = list(first.values())[rank::world_size]
    todo = [position for position in mine if keys[position] not in store]
    pending: list[tuple[str, Entry]] = []
    bar = tqdm(
        total=len(mine),
        initial=len(mine) - len(todo),
        desc=description,
        disable=not progress or rank != 0,
    )
    try:
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            outputs = encode([items[position] for position in batch])
            if len(outputs) != len(batch):
                raise ValueError(
                    f"{description}: encode gave {len(outputs)} outputs for {len(batch)} items"
                )
            pending += zip([keys[position] for position in batch], outputs, strict=True)
            bar.update(len(batch))
            if len(pending) >= shard_entries:
                store.add(pending)
                pending = []
    finally:  # an image that does not decode, or Ctrl-C, costs none of the work before it
        bar.close()
        store.add(pending)
    return len(todo)


def image_key(cell: Row | None, image_id: str) -> str:
    """Return a store's key for the image of one row, which changes when the image does.

    The key of a file depends on its path, size and time of change; embedded bytes are hashed.

    Raises:
        FileNotFoundError: no such file; the message names it and the image.
        ValueError: a row with neither path nor bytes.
    """
    cell = cell or {}
    data, path = cell.get("bytes"), cell.get("path")
    part = f"|{cell['box']}" if cell.get("box") else ""
    if data is not None:
        return f"bytes:{hashlib.blake2b(data, digest_size=16).hexdigest()}{part}"
    if path is None:
        raise ValueError(
            f"image {image_id}: the row has neither a path nor bytes; where features are in files, "
            "--region_files names them"
        )
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"image {image_id} ({path}): no such file") from error
    return f"file:{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}{part}"


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
