"""A shard of a feature store: entries of named tensors in one safetensors file, read as a map.

It holds n entries: ``keys`` uint8 (n, 16); for each named tensor the rows of all entries one after
another, ``<name>`` (sum of lengths, ...), and where each entry begins, ``<name>.offsets`` int64
(n + 1,); ``crc32`` int64 (n,), the checksum of each entry's numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

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

Entry = Mapping[str, Tensor]
_OFFSETS, _SUMS = ".offsets", "crc32"


class Shard:
    """A file of `write_shard`, mapped: only entries that are asked for are read.

    Attributes:
        keys: keys of the entries, 16 bytes each, in their order.

    Raises:
        ValueError: the file is cut short or damaged; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, "pt") as file:  # checks that the header's lengths are the file's
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            keys, sums = tensors.pop("keys").numpy(), tensors.pop(_SUMS).numpy().copy()
            # numpy's integers index in a tenth of the time of torch's
            offsets = {n: tensors.pop(n).numpy() for n in list(tensors) if n.endswith(_OFFSETS)}
            values = {name: (rows, offsets[name + _OFFSETS]) for name, rows in tensors.items()}
            if keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != 16:
                raise ValueError(f"keys are {keys.dtype} {keys.shape}")
            if sums.dtype != np.int64 or sums.shape != (len(keys),):
                raise ValueError(f"{_SUMS} are {sums.dtype} {sums.shape}")
            for name, (rows, ends) in values.items():
                if ends.dtype != np.int64 or ends.shape != (len(keys) + 1,) or not rows.ndim:
                    raise ValueError(f"{name} does not fit {len(keys)} keys")
                if ends[0] or ends[-1] != len(rows) or (ends[1:] < ends[:-1]).any():
                    raise ValueError(f"the offsets of {name} do not ascend from 0 to {len(rows)}")
        except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
            raise self._damaged(error) from error
        self.keys = [key.tobytes() for key in keys]
        self._values = values  # name -> rows of all entries, offsets
        self._sums = sums  # -1: compared

    def entry(self, number: int, key: str) -> dict[str, Tensor]:
        """Return an entry's tensors by name as on disk, mapped; `key` is for the message.

        Raises:
            ValueError: its numbers are not those written; the message names the file.
        """
        found = {
            name: rows[offsets[number] : offsets[number + 1]]
            for name, (rows, offsets) in self._values.items()
        }
        if self._sums[number] >= 0:
            if _crc(found) != self._sums[number]:
                raise self._damaged(f"the checksum of {key[:200]!r}")
            self._sums[number] = -1
        return found

    def _damaged(self, reason: object) -> ValueError:
        return ValueError(
            f"{self.path} is cut short or damaged ({reason}); delete it, and its entries are "
            "computed again"
        )


def write_shard(
    path: Path, keys: bytes, entries: Sequence[tuple[str, Entry]], dtype: torch.dtype
) -> None:
    """Write a shard aside and move it into place; other processes may write the same one.

    Args:
        path: the file to write.
        keys: 16 bytes for each entry.
        entries: name for messages, and tensors by name. All have the same names; a name's tensors
            may differ in length along the first axis, not in the others.
        dtype: type of the numbers on disk.

    Raises:
        ValueError: names or shapes that differ; a number that is not finite, or too large for
            the dtype on disk. The message names the entry.
        OSError: it cannot be written.
    """
    names = sorted(entries[0][1])
    parts: list[dict[str, Tensor]] = []
    for key, tensors in entries:
        if sorted(tensors) != names:
            raise ValueError(f"{key[:200]!r}: got {sorted(tensors)}, the first entry has {names}")
        first = parts[0] if parts else {}
        parts.append(
            {name: _on_disk(key, name, tensors[name], first.get(name), dtype) for name in names}
        )
    shard = {"keys": torch.frombuffer(bytearray(keys), dtype=torch.uint8).view(-1, 16)}
    for name in names:
        shard[name] = torch.cat([part[name] for part in parts])
        lengths = torch.tensor([0] + [len(part[name]) for part in parts])
        shard[name + _OFFSETS] = lengths.cumsum(0)
    shard[_SUMS] = torch.tensor([_crc(part) for part in parts])
    with written(path, shared=True) as aside:
        save_file(shard, aside)


def _on_disk(
    key: str, name: str, tensor: Tensor, first: Tensor | None, kind: torch.dtype
) -> Tensor:
    where = f"{key[:200]!r}: {name}"
    if tensor.ndim == 0 or not tensor.is_floating_point():
        raise ValueError(
            f"{where} must be floats with one axis at least, got {tensor.dtype} "
            f"{tuple(tensor.shape)}"
        )
    if first is not None and tensor.shape[1:] != first.shape[1:]:
        raise ValueError(
            f"{where} has shape {tuple(tensor.shape)}, the first entry {tuple(first.shape)}; only "
            "the first axis may differ"
        )
    rows = tensor.detach().to("cpu", kind)
    if not rows.isfinite().all():
        raise ValueError(
            f"{where} is not finite in {str(kind).removeprefix('torch.')}; its largest magnitude "
            f"is {tensor.abs().max():g} (dtype='float32' holds more than float16)"
        )
    return rows


def _crc(tensors: Entry) -> int:
    """Return the checksum of an entry's numbers as on disk, names and shapes."""
    sum = 0
    for name, rows in sorted(tensors.items()):
        sum = zlib.crc32(f"{name} {rows.dtype} {tuple(rows.shape)}".encode(), sum)
        sum = zlib.crc32(rows.flatten().view(torch.uint8).numpy().data, sum)
    return sum
