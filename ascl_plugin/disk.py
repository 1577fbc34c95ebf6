"""Files and folders that are whole or not there, errors that name them, and checksums."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def written(path: Path, shared: bool = False) -> Iterator[Path]:
    """A name aside to write a file or a folder to; left without an error, that becomes `path`.

    Killed at any moment, `path` is the old or the new one, or, where it is a folder, `put_back`
    makes it the old one. What a kill leaves, `.NAME.writing`, is hidden; the next to write `path`
    removes it. Only write inside: what goes wrong there is told as that `path` cannot be written.

    Args:
        path: its folder is made when missing.
        shared: other processes may write it at the same time: each gets a name of its own, which
            nobody removes after a kill.

    Raises:
        OSError: as of `writing`; `path` is as it was.
    """
    own = f".{secrets.token_hex(4)}" if shared else ""
    aside = path.with_name(f".{path.name}{own}.writing")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove(aside)
            yield aside
            into_place(aside, path)
    except BaseException:
        _remove(aside)  # it may be what fills the disk
        raise


def write_text(path: Path, text: str, shared: bool = False) -> None:
    """A text as a file in UTF-8, `written`."""
    with written(path, shared) as aside:
        aside.write_text(text, encoding="utf-8")


def into_place(aside: Path, path: Path) -> None:
    """Brings a file, or all files of a folder, to the disk, and then gives it the name `path`."""
    for file in aside.rglob("*") if aside.is_dir() else [aside]:
        if not file.is_dir():
            with open(file, "rb+") as handle:  # before the name is: a power cut leaves no empty
                os.fsync(handle.fileno())
    if not (aside.is_dir() and path.exists()):
        os.replace(aside, path)
        return
    old = path.with_name(f".{path.name}.old")
    _remove(old)
    os.replace(path, old)
    try:
        os.replace(aside, path)
    except BaseException:
        os.replace(old, path)
        raise
    _remove(old)


def remove_folder(path: Path) -> None:
    """Removes a folder; never is there a half of one by its name."""
    removed = path.with_name(f".{path.name}.removed")
    _remove(removed)
    os.replace(path, removed)
    _remove(removed)


def put_back(folder: Path) -> None:
    """Ends what a kill left half done in a folder that nobody else writes to."""
    for old in folder.glob(".*.old"):
        path = folder / old.name[1 : -len(".old")]
        if path.exists():
            _remove(old)
        else:
            os.replace(old, path)
    for pattern in (".*.removed", ".*.writing"):
        for left in folder.glob(pattern):
            _remove(left)


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


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _safetensor_error() -> type[Exception]:
    try:
        from safetensors import SafetensorError
    except ImportError:
        return OSError
    return SafetensorError
