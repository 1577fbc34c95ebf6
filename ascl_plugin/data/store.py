"""Outputs of frozen encoders on disk: computed once, memory-mapped ever after.

A store is a folder ``<root>/<hash of spec and dtype>/`` with ``spec.json`` and any number of shards
``shard-<hash of keys>.safetensors``. A shard holds n entries: ``keys`` uint8 (n, 16), and for each
named tensor all entries' rows one after the other, ``<name>`` (sum of lengths, ...), and where each
begins, ``<name>.offsets`` int64 (n + 1,); ``crc32`` int64 (n,) is of each entry's numbers, and is
looked at when a process first reads the entry (shards of earlier versions have none). Shards are
written aside and moved into place, so several processes may fill one store and a killed one leaves
nothing half done.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.disk import writing

try:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file
    from tqdm import tqdm
except ImportError as error:
    raise ImportError(
        'the feature store needs safetensors and tqdm: pip install "ascl-plugin[recipes]"'
    ) from error

_OFFSETS, _SUMS = ".offsets", "crc32"
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
        self.path.mkdir(parents=True, exist_ok=True)
        _write_aside(self.path / "spec.json", lambda path: path.write_text(text))
        self._forget()
        self.refresh()

    def _forget(self) -> None:
        self._shards: dict[str, int] = {}  # file name -> its number
        self._tensors: list[dict[str, tuple[Tensor, np.ndarray]]] = []  # name -> rows, offsets
        self._sums: list[np.ndarray | None] = []  # of a shard's entries; -1: looked at
        self._entries: dict[bytes, tuple[int, int]] = {}  # hashed key -> shard, entry

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
            if path.name not in self._shards:
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
        found = {
            name: values[offsets[entry] : offsets[entry + 1]]
            for name, (values, offsets) in self._tensors[shard].items()
        }
        sums = self._sums[shard]
        if sums is not None and sums[entry] >= 0:
            if _crc(found) != sums[entry]:
                file = list(self._shards)[shard]
                raise ValueError(_damaged(self.path / file, f"the checksum of {key[:200]!r}"))
            sums[entry] = -1
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
        shard = {"keys": torch.frombuffer(bytearray(keys), dtype=torch.uint8).view(-1, 16)}
        names = sorted(entries[0][1])
        parts: list[dict[str, Tensor]] = [{} for _ in entries]
        for key, tensors in entries:
            if sorted(tensors) != names:
                raise ValueError(
                    f"{key[:200]!r}: got {sorted(tensors)}, the first entry has {names}"
                )
        for name in names:
            rows = [self._row(key, name, tensors[name]) for key, tensors in entries]
            for (key, _), row in zip(entries, rows, strict=True):
                if row.shape[1:] != rows[0].shape[1:]:
                    raise ValueError(
                        f"{key[:200]!r}: {name} has shape {tuple(row.shape)}, the first entry "
                        f"{tuple(rows[0].shape)}; only the first axis may differ"
                    )
            for part, row in zip(parts, rows, strict=True):
                part[name] = row
            shard[name] = torch.cat(rows)
            lengths = torch.tensor([0] + [len(row) for row in rows])
            shard[name + _OFFSETS] = lengths.cumsum(0)
            if not shard[name].isfinite().all():
                self._refuse_infinite(name, entries, rows)
        shard[_SUMS] = torch.tensor([_crc(part) for part in parts])
        name = hashlib.blake2b(keys, digest_size=8).hexdigest()
        path = self.path / f"shard-{name}.safetensors"
        _write_aside(path, lambda aside: save_file(shard, aside))
        if path.name not in self._shards:
            self._map(path)

    def _row(self, key: str, name: str, tensor: Tensor) -> Tensor:
        if tensor.ndim == 0 or not tensor.is_floating_point():
            raise ValueError(
                f"{key[:200]!r}: {name} must be floats with one axis at least, "
                f"got {tensor.dtype} {tuple(tensor.shape)}"
            )
        return tensor.detach().to("cpu", DTYPES[self.dtype])

    def _refuse_infinite(
        self, name: str, entries: Sequence[tuple[str, Mapping[str, Tensor]]], rows: list[Tensor]
    ) -> None:
        for (key, tensors), row in zip(entries, rows, strict=True):
            if not row.isfinite().all():
                raise ValueError(
                    f"{key[:200]!r}: {name} is not finite in {self.dtype}; its largest magnitude "
                    f"is {tensors[name].abs().max():g} (dtype='float32' holds more than float16)"
                )

    def _map(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:  # checks that the header's lengths are the file's
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            keys = tensors.pop("keys").numpy()
            sums = tensors.pop(_SUMS).numpy().copy() if _SUMS in tensors else None
            # numpy's integers index in a tenth of the time of torch's
            offsets = {n: tensors.pop(n).numpy() for n in list(tensors) if n.endswith(_OFFSETS)}
            values = {name: (rows, offsets[name + _OFFSETS]) for name, rows in tensors.items()}
            if keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != 16:
                raise ValueError(f"keys are {keys.dtype} {keys.shape}")
            if sums is not None and (sums.dtype != np.int64 or sums.shape != (len(keys),)):
                raise ValueError(f"{_SUMS} are {sums.dtype} {sums.shape}")
            for name, (rows, ends) in values.items():
                if ends.dtype != np.int64 or ends.shape != (len(keys) + 1,) or not rows.ndim:
                    raise ValueError(f"{name} does not fit {len(keys)} keys")
                if ends[0] or ends[-1] != len(rows) or (ends[1:] < ends[:-1]).any():
                    raise ValueError(f"{name} does not begin where it says")
        except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
            raise ValueError(_damaged(path, error)) from error
        shard = self._shards[path.name] = len(self._tensors)
        self._tensors.append(values)
        self._sums.append(sums)
        for entry, key in enumerate(keys):
            self._entries[key.tobytes()] = shard, entry


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


def _crc(tensors: Mapping[str, Tensor]) -> int:
    """Of an entry's numbers as on disk, names and shapes."""
    sum = 0
    for name, rows in sorted(tensors.items()):
        sum = zlib.crc32(f"{name} {rows.dtype} {tuple(rows.shape)}".encode(), sum)
        sum = zlib.crc32(rows.flatten().view(torch.uint8).numpy().data, sum)
    return sum


def _damaged(path: Path, what: Any) -> str:
    return f"{path} is cut short or damaged ({what}); delete it, and its entries are computed again"


def _write_aside(path: Path, write: Callable[[Path], Any]) -> None:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with writing(path):
            write(aside)
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
