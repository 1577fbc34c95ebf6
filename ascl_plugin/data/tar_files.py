"""Tar files in webdataset's layout, `KEY.jpg` beside `KEY.txt` or `KEY.json`.

The `webdataset` library expands patterns and groups members into samples. Members are read here,
because the library reads one whole before its claimed size can be checked, takes a damaged header
for the end, and runs commands (``pipe:``) to open addresses. Its decoders unpickle: never use them.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from glob import glob
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

from ascl_plugin.data.picture_folder import ENDINGS
from ascl_plugin.data.rows import split_in
from ascl_plugin.data.tables import CAPTIONS, IMAGE, IMAGE_ID

try:
    from webdataset.shardlists import expand_urls
    from webdataset.tariterators import group_by_keys
except ImportError as error:
    raise ImportError('streams need webdataset: pip install "ascl-plugin[recipes]"') from error

Sample = dict[str, object]  # `__key__`, `__url__`, and contents by suffix

#: Suffixes of a sample's members, in the order in which they are looked for.
PICTURES = (*IMAGE, *(ending[1:] for ending in ENDINGS if ending not in (".jpg", ".png")))
TEXTS = (*CAPTIONS, "txt", "json")
TARS = (".tar", ".tar.gz", ".tgz")
MAX_BYTES = 2**28  # of one member; a sparse one may claim any size
MAX_RATIO = 100  # of a compressed file: pictures hardly shrink, zeros to a thousandth
_BLOCK = 512  # bytes of a header; the end of a tar is one of zeros
_META = re.compile(r"__[^/]*__($|/)")  # webdataset's own notes
_PACKED = re.compile(r"\.tar\.(bz2|xz|zst|lz4|lzma|br)$|\.(tbz2?|txz)$", re.IGNORECASE)
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:")  # of two letters at least: `C:` is a drive


def is_tar(path: str | Path) -> bool:
    """Return True for the name of a tar file, compressed by gzip or not."""
    return str(path).lower().endswith(TARS)


def tar_files(source: str | Path | list[str]) -> list[str] | None:
    """Return the files that a pattern or a list of them names, sorted, or None for other sources.

    Args:
        source: paths with wildcards and braces (``train-{000..331}.tar``), joined by ``::`` or in a
            list. All end in one of `TARS`, or none is meant.

    Raises:
        FileNotFoundError: a pattern that no file matches.
        ValueError: an address in place of a path, such as ``pipe:`` or ``http:``; broken braces.
    """
    given = [source] if isinstance(source, str | Path) else source
    try:
        patterns = [path for some in given for path in expand_urls(str(some))]
    except (AssertionError, ValueError) as error:  # ${VARIABLE} that is not set; a brace left open
        raise ValueError(f"{source}: {error}") from error
    for pattern in patterns:
        if _ADDRESS.match(pattern):
            raise ValueError(f"{pattern}: addresses are not opened; give the path of a local file")
        if _PACKED.search(pattern):
            raise ValueError(f"{pattern}: of compressed tar files gzip alone is read; pack it anew")
    if not all(map(is_tar, patterns)):
        return None
    found = {pattern: glob(pattern) for pattern in patterns}
    if lacking := [pattern for pattern, files in found.items() if not files]:
        raise FileNotFoundError(f"{', '.join(lacking)}: no such tar files")
    return sorted({file for files in found.values() for file in files})


def tars_below(root: Path) -> list[str]:
    """Return the tar files of a folder, and of those in it."""
    paths = [path for pattern in ("*", "*/*") for path in root.glob(pattern)]
    return sorted(str(p) for p in paths if is_tar(p) and p.name[0] != "." and p.is_file())


def by_split(files: Iterable[str], root: Path | None = None) -> dict[str, list[str]]:
    """Return tar files by split: of a folder below `root`, or by their names; else "train"."""
    found: dict[str, list[str]] = {}
    for file in files:
        path = Path(os.path.abspath(file))
        # a folder that was named whole is called as anything is: "test_run_7" is no split
        below = path.parent != Path(os.path.abspath(root)) if root else path.parent.name.isalnum()
        split = (split_in(path.parent.name) if below else None) or split_in(path.name) or "train"
        found.setdefault(split, []).append(file)
    return found


def read_tar(path: str) -> Iterator[Sample]:
    """Yield samples: `__key__`, and bytes by suffix in lower case.

    Raises:
        ValueError: a file that is cut short or damaged; a member of more than `MAX_BYTES`; a
            compressed file that unpacks to more than `MAX_RATIO` times its size; two members of one
            name.
        tarfile.TarError: no tar file, or a damaged one.
    """
    return group_by_keys(_members(path))


def decoded(sample: Mapping[str, Any]) -> Sample:
    """Return a sample with undecoded pictures, texts, and parsed json.

    Raises:
        ValueError: an empty picture; text that is no UTF-8; broken json.
    """
    return {name: _decoded(name, value, sample["__key__"]) for name, value in sample.items()}


def _members(path: str) -> Iterator[Sample]:
    """Yield regular members as `group_by_keys` takes them."""
    with _unpacked(path) as (raw, packed), tarfile.open(fileobj=raw, mode="r|") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # else it keeps the header of each
            hidden = member.name.rpartition("/")[2].startswith("._")  # macOS's notes
            if not member.isreg() or hidden or _META.match(member.name):
                continue
            if member.size > MAX_BYTES:
                raise ValueError(f"{member.name[:80]} has {member.size} bytes, {MAX_BYTES} at most")
            file = tar.extractfile(member)
            assert file is not None  # a regular member has content
            name = member.name.removeprefix("./")
            yield {"fname": name, "data": file.read(), "__url__": path}
        if packed:
            while raw.read(2**20):  # to its end, where the sum of what it holds is checked
                pass
            return
    with open(path, "rb") as whole:  # tarfile takes anything that is no header for the end
        whole.seek(tar.offset)
        if whole.read(_BLOCK) != bytes(_BLOCK):
            raise ValueError(
                f"it is cut short or damaged: byte {tar.offset} begins neither a member nor the "
                "end of a tar file; put it back whole"
            )


@contextmanager
def _unpacked(path: str) -> Iterator[tuple[BufferedIOBase, bool]]:
    """Open a file, through gzip where its first bytes say so, whatever its name."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        yield (_Bounded(file) if packed else file), packed


class _Bounded(gzip.GzipFile):
    """A compressed file that is read from its beginning, and no further than `MAX_RATIO` allows.

    A few of its bytes may be gigabytes of headers, which tarfile takes into memory.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._most = MAX_RATIO * os.fstat(file.fileno()).st_size + 2**20
        self._given = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._given += len(data)
        if self._given > self._most:
            raise ValueError(f"it unpacks to more than {MAX_RATIO} times its size")
        return data


def _decoded(name: str, value: object, key: object) -> object:
    if not isinstance(value, bytes):
        return value
    kind = name.rpartition(".")[2]  # of KEY.input.jpg
    if kind in PICTURES:
        if not value:
            raise ValueError(f"{name} is empty")
        return {"path": f"{key}.{name}", "bytes": value}
    try:
        if kind == "json":
            return json.loads(value)
        return value.decode() if kind in TEXTS or name in IMAGE_ID else value
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"{name} cannot be read: {type(error).__name__}: {error}") from error
