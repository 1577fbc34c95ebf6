"""Atomic writes of files and folders, errors that name the path, and checksums."""

from __future__ import annotations

import hashlib
import json
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
    """Raise errors of the block as an OSError that names `path` and the cure.

    Raises:
        OSError: a full disk, a read-only one, a limit; also where a library has its own error for
            that (torch.save: RuntimeError, safetensors: SafetensorError).
    """
    try:
        yield
    except Exception as error:
        of_safetensors = type(error).__name__ == "SafetensorError"  # the base install has none
        if not isinstance(error, OSError | RuntimeError) and not of_safetensors:
            raise
        cause: BaseException = error
        while cause.__context__ is not None and not isinstance(cause, OSError):
            cause = cause.__context__  # torch.save says "unexpected pos", its cause says why
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise OSError(
            f"{path} cannot be written ({reason}); earlier files are whole: with room and "
            "permission there, the same command continues (a training run: with --resume)"
        ) from error


@contextmanager
def written(path: Path, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary name to write a file or folder to; rename it to `path` after the block.

    If the process is killed, `path` is the old or the new one; if it is a folder, `put_back` brings
    the old one back. A kill can leave a hidden `.NAME.writing`, which the next write removes. Only
    write inside the block: its errors are raised as "`path` cannot be written".

    Args:
        path: its folder is made when missing.
        shared: other processes may write it at the same time: each gets a name of its own, which
            stays after a kill.

    Raises:
        OSError: see `writing`; `path` is unchanged.
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
        _remove(aside)  # it may fill the disk
        raise


def write_text(path: Path, text: str, shared: bool = False) -> None:
    """Write a text as UTF-8, see `written`."""
    with written(path, shared) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write JSON as a file, `written`."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def into_place(aside: Path, path: Path) -> None:
    """Flush a file, or all files of a folder, to the disk, then rename it to `path`."""
    for file in aside.rglob("*") if aside.is_dir() else [aside]:
        if not file.is_dir():
            with open(file, "rb+") as handle:  # first: a power cut leaves no empty file
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
    """Remove a folder at once; half of it never has its name."""
    removed = path.with_name(f".{path.name}.removed")
    _remove(removed)
    os.replace(path, removed)
    _remove(removed)


def put_back(folder: Path) -> None:
    """Complete or undo interrupted writes in a folder that no other process writes to."""
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
    """Write `SHA256SUMS` of the named files, as `sha256sum -c` reads it."""
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines))


def check_sums(folder: Path) -> None:
    """Check the files of a folder against its `SHA256SUMS`, if there is one.

    Raises:
        ValueError: a file differs or is missing; the message names it.
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
            raise ValueError(f"{name} is damaged: its SHA-256 differs from {SUMS}")


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
