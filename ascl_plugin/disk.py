"""Files that are whole or not there: errors of writing that name the place, and checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

SUMS = "SHA256SUMS"
_CHUNK = 2**20


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong inside names `path` and says how to go on.

    Raises:
        OSError: a full disk, a read-only one, a limit; also where a library has an error of its
            own for that (torch.save: RuntimeError, safetensors: SafetensorError).
    """
    try:
        yield
    except (OSError, RuntimeError, _safetensor_error()) as error:
        told: BaseException = error
        while told.__context__ is not None and not isinstance(told, OSError):
            told = told.__context__  # torch.save says "unexpected pos", what is below says why
        reason = (str(told).strip().splitlines() or [type(told).__name__])[0]
        raise OSError(
            f"{path} cannot be written ({reason}); what was written before is whole: with room and "
            "permission there, the same command goes on (a training run: with --resume)"
        ) from error


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Writes `SHA256SUMS` of the files named, as `sha256sum -c` reads it."""
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines))


def check_sums(folder: Path) -> None:
    """Sees that the files of a folder are what `write_sums` saw; of no `SHA256SUMS`, nothing.

    Raises:
        ValueError: one is not, or is gone; the message names it.
    """
    sums = folder / SUMS
    if not sums.is_file():
        return
    lines = sums.read_bytes().decode(errors="replace").splitlines()
    if not lines:
        raise ValueError(f"{SUMS} is empty")
    for line in lines:
        expected, _, name = line.partition("  ")
        if not name or Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{SUMS} names {name[:80]!r}, which is not there")
        if _sha256(folder / name) != expected:
            raise ValueError(f"{name} is not what was written: its SHA-256 differs from {SUMS}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _safetensor_error() -> type[Exception]:
    try:
        from safetensors import SafetensorError
    except ImportError:
        return OSError
    return SafetensorError
