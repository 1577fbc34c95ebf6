"""A shard of a feature store: entries of named tensors in one safetensors file, read as a map.

It holds n entries: ``keys`` uint8 (n, 16), and for each named tensor all entries' rows one after
the other, ``<name>`` (sum of lengths, ...), and where each begins, ``<name>.offsets`` int64
(n + 1,); ``crc32`` int64 (n,) is of each entry's numbers (shards of earlier versions have none).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.disk import written

try:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file
except ImportError as error:
    raise ImportError(
        'the feature store needs safetensors: pip install "ascl-plugin[recipes]"'
    ) from error

_OFFSETS, _SUMS = ".offsets", "crc32"


class Shard:
    """A file of `write_shard`, mapped: only entries that are asked for are read.

    Attributes:
        keys: of the entries, 16 bytes each, in their order.

    Raises:
        ValueError: it is cut short or damaged; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
            raise self._damaged(error) from error
        self.keys = [key.tobytes() for key in keys]
        self._values = values  # name -> rows of all entries, where each begins
        self._sums = sums  # -1: looked at

    def entry(self, number: int, key: str) -> dict[str, Tensor]:
        """An entry's tensors by name as on disk, mapped; `key` is for the message.

        Raises:
            ValueError: its numbers are not what was written; the message names the file.
        """
        found = {
            name: rows[offsets[number] : offsets[number + 1]]
            for name, (rows, offsets) in self._values.items()
        }
        if self._sums is not None and self._sums[number] >= 0:
            if _crc(found) != self._sums[number]:
                raise self._damaged(f"the checksum of {key[:200]!r}")
            self._sums[number] = -1
        return found

    def _damaged(self, what: Any) -> ValueError:
        return ValueError(
            f"{self.path} is cut short or damaged ({what}); delete it, and its entries are "
            "computed again"
        )


def write_shard(
    path: Path, keys: bytes, entries: Sequence[tuple[str, Mapping[str, Tensor]]], dtype: torch.dtype
) -> None:
    """Writes a shard aside and moves it into place; other processes may write the same one.

    Args:
        path: of the file.
        keys: 16 bytes for each entry.
        entries: name for messages, and tensors by name. All have the same names; a name's tensors
            may differ in length along the first axis, not in the others.
        dtype: of the numbers on disk.

    Raises:
        ValueError: names or shapes that differ; a number that is not finite, or too large for
            the dtype on disk. The message names the entry.
        OSError: it cannot be written.
    """
    shard = {"keys": torch.frombuffer(bytearray(keys), dtype=torch.uint8).view(-1, 16)}
    names = sorted(entries[0][1])
    parts: list[dict[str, Tensor]] = [{} for _ in entries]
    for key, tensors in entries:
        if sorted(tensors) != names:
            raise ValueError(f"{key[:200]!r}: got {sorted(tensors)}, the first entry has {names}")
    for name in names:
        rows = [_row(key, name, tensors[name], dtype) for key, tensors in entries]
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
            _refuse_infinite(name, entries, rows)
    shard[_SUMS] = torch.tensor([_crc(part) for part in parts])
    with written(path, shared=True) as aside:
        save_file(shard, aside)


def _row(key: str, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.ndim == 0 or not tensor.is_floating_point():
        raise ValueError(
            f"{key[:200]!r}: {name} must be floats with one axis at least, "
            f"got {tensor.dtype} {tuple(tensor.shape)}"
        )
    return tensor.detach().to("cpu", dtype)


def _refuse_infinite(
    name: str, entries: Sequence[tuple[str, Mapping[str, Tensor]]], rows: list[Tensor]
) -> None:
    for (key, tensors), row in zip(entries, rows, strict=True):
        if not row.isfinite().all():
            on_disk = str(row.dtype).removeprefix("torch.")
            raise ValueError(
                f"{key[:200]!r}: {name} is not finite in {on_disk}; its largest magnitude "
                f"is {tensors[name].abs().max():g} (dtype='float32' holds more than float16)"
            )


def _crc(tensors: Mapping[str, Tensor]) -> int:
    """Of an entry's numbers as on disk, names and shapes."""
    sum = 0
    for name, rows in sorted(tensors.items()):
        sum = zlib.crc32(f"{name} {rows.dtype} {tuple(rows.shape)}".encode(), sum)
        sum = zlib.crc32(rows.flatten().view(torch.uint8).numpy().data, sum)
    return sum
