"""Outputs of frozen encoders on disk: computed once, memory-mapped ever after.

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
from typing import Any

import torch
from torch import Tensor

from ascl_plugin.data.store_shard import Shard, write_shard
from ascl_plugin.disk import write_text

try:
    from tqdm import tqdm
except ImportError as error:
    raise ImportError('the feature store needs tqdm: pip install "ascl-plugin[recipes]"') from error

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class FeatureStore:
    """Dictionary on disk from a string to a dict of float tensors.

    Open files are none: shards stay mapped, and a copy sent to a worker process maps them anew.

    Args:
        folder: root of all stores; made when missing.
        spec: JSON of all that the features depend on (an encoder's `fingerprint()`); another spec,
            another sub-folder.
        dtype: of the numbers on disk: "float16", "bfloat16" or "float32".

    Raises:
        TypeError: a spec that is not JSON.
        ValueError: an unknown dtype; a shard that is cut short or damaged.
    """

    def __init__(self, folder: str | Path, spec: Mapping[str, Any], dtype: str = "float16"):
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
        self._forget()
        self.refresh()

    def _forget(self) -> None:
        self._shards: dict[str, Shard] = {}  # by file name
        self._entries: dict[bytes, tuple[Shard, int]] = {}  # hashed key -> shard, entry

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
        self.refresh()

    def refresh(self) -> None:
        """Sees the shards that other processes wrote since.

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
        """The entry's tensors by name, float32, copies of one's own.

        Raises:
            KeyError: no such entry.
            ValueError: its numbers are not what was written; the message names the file.
        """
        try:
            shard, entry = self._entries[_digest(key)]
        except KeyError:
            raise KeyError(f"{self.path}: no features for {key[:200]!r}") from None
        found = shard.entry(entry, key)
        return {name: rows.to(torch.float32, copy=True) for name, rows in found.items()}

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Positions in `keys` of what is not stored; of a key that occurs often, the first."""
        first: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            first.setdefault(_digest(key), position)
        return [position for digest, position in first.items() if digest not in self._entries]

    def add(self, entries: Sequence[tuple[str, Mapping[str, Tensor]]]) -> None:
        """Writes one shard; no entries, no shard.

        Args:
            entries: key and tensors by name. All have the same names; a name's tensors may differ
                in length along the first axis, not in the others.

        Raises:
            ValueError: names or shapes that differ; a number that is not finite, or too large for
                the dtype on disk. The message names the key.
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
    items: Sequence[Any],
    keys: Sequence[str],
    encode: Callable[[list[Any]], Sequence[Mapping[str, Tensor]]],
    batch_size: int,
    description: str,
    progress: bool = True,
    shard_entries: int = 2048,
    rank: int = 0,
    world_size: int = 1,
) -> int:
    """Encodes what `store` lacks. Stopped and started again, it goes on where it was.

    With several processes, each takes every world_size-th of the distinct keys, whatever the others
    have stored by then; wait for all of them, then `store.refresh()`.

    Args:
        store: to fill.
        items: N things that `encode` takes, indexed one by one.
        keys: their N keys.
        encode: a list of items -> as many dicts of float tensors.
        batch_size: items in one call of `encode`, at most.
        description: of the progress bar, which the first process shows.
        progress: whether it is shown.
        shard_entries: entries after which a shard is written: what a kill can lose.
        rank, world_size: which process this is, of how many.

    Returns:
        How many entries this process encoded.

    Raises:
        ValueError: as many keys as items are expected, and as many outputs as inputs.
    """
    if len(items) != len(keys):
        raise ValueError(f"{description}: {len(items)} items, {len(keys)} keys")
    first: dict[str, int] = {}
    for position, key in enumerate(keys):
        first.setdefault(key, position)
    # shared out before looking at the store, which another process may be adding to right now
    mine = list(first.values())[rank::world_size]
    todo = [position for position in mine if keys[position] not in store]
    pending: list[tuple[str, Mapping[str, Tensor]]] = []
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


def image_key(cell: Mapping[str, Any] | None, image_id: str) -> str:
    """A store's key for the image of one row: changes when the image does.

    A file counts as the same while its path, size and time of change are; embedded bytes are
    hashed.

    Raises:
        FileNotFoundError: no such file; the message names it and the image.
        ValueError: a row with neither path nor bytes.
    """
    data, path = (cell or {}).get("bytes"), (cell or {}).get("path")
    if data is not None:
        return f"bytes:{hashlib.blake2b(data, digest_size=16).hexdigest()}"
    if path is None:
        raise ValueError(
            f"image {image_id}: the row has neither a path nor bytes; where features are in files, "
            "--region_files says in which"
        )
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"image {image_id} ({path}): no such file") from error
    return f"file:{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
