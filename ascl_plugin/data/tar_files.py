"""Tar files in webdataset's layout, `KEY.jpg` beside `KEY.txt` or `KEY.json`.

The `webdataset` library expands patterns and groups members into samples. Members are read here,
because the library reads one whole before its claimed size can be checked, takes a damaged header
for the end, and runs commands (``pipe:``) to open addresses. Its decoders unpickle: never use them.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from glob import glob
from pathlib import Path

from ascl_plugin.data.tables import CAPTIONS, IMAGE, IMAGE_ID

try:
    from webdataset.shardlists import expand_urls
    from webdataset.tariterators import group_by_keys
except ImportError as error:
    raise ImportError('streams need webdataset: pip install "ascl-plugin[recipes]"') from error

Sample = dict[str, object]  # `__key__`, `__url__`, and contents by suffix

#: Suffixes of a sample's members, in the order in which they are looked for.
PICTURES = (*IMAGE, "jpeg", "webp", "tif", "tiff", "bmp")
TEXTS = (*CAPTIONS, "txt", "json")
MAX_BYTES = 2**28  # of one member; a sparse one may claim any size
_BLOCK = 512  # bytes of a header; the end of a tar is one of zeros
_META = re.compile(r"__[^/]*__($|/)")  # webdataset's own notes
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:")  # of two letters at least: `C:` is a drive


def tar_files(source: str | Path | list[str]) -> list[str] | None:
    """Return the files that a pattern or a list of them names, sorted, or None for other sources.

    Args:
        source: paths with wildcards and braces (``train-{000..331}.tar``), joined by ``::`` or in a
            list. All end in ``.tar``, or none is meant.

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
    if not all(pattern.endswith(".tar") for pattern in patterns):
        return None
    found = {pattern: glob(pattern) for pattern in patterns}
    if lacking := [pattern for pattern, files in found.items() if not files]:
        raise FileNotFoundError(f"{', '.join(lacking)}: no such tar files")
    return sorted({file for files in found.values() for file in files})


def read_tar(path: str) -> Iterator[Sample]:
    """Yield samples: `__key__`, and by suffix undecoded pictures, texts, and parsed json.

    Raises:
        ValueError: a file that is cut short or damaged; a member of more than `MAX_BYTES`; text
            that is no UTF-8; broken json; two members of one name.
        tarfile.TarError: no uncompressed tar file, or a damaged one.
    """
    for sample in group_by_keys(_members(path)):
        yield {name: _decoded(name, value, sample["__key__"]) for name, value in sample.items()}


def _members(path: str) -> Iterator[Sample]:
    """Yield regular members as `group_by_keys` takes them.

    Compressed files are refused (``r|``): a few of their bytes may be gigabytes of headers.
    """
    with tarfile.open(path, "r|") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # else it keeps the header of each
            hidden = member.name.rpartition("/")[2].startswith("._")  # macOS's notes
            if not member.isreg() or hidden or _META.match(member.name):
                continue
            if member.size > MAX_BYTES:
                raise ValueError(f"{member.name[:80]} has {member.size} bytes, {MAX_BYTES} at most")
            file = tar.extractfile(member)
            assert file is not None  # a regular member has content
            yield {"fname": member.name, "data": file.read(), "__url__": path}
    with open(path, "rb") as raw:  # tarfile takes anything that is no header for the end
        raw.seek(tar.offset)
        if raw.read(_BLOCK) != bytes(_BLOCK):
            raise ValueError(
                f"it is cut short or damaged: byte {tar.offset} begins neither a member nor the "
                "end of a tar file; put it back whole"
            )


def _decoded(name: str, value: object, key: str) -> object:
    if not isinstance(value, bytes):
        return value
    if name in PICTURES:
        return {"path": f"{key}.{name}", "bytes": value}
    if name == "json":
        return json.loads(value)
    return value.decode() if name in TEXTS or name in IMAGE_ID else value
