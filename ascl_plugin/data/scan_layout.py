"""Images of a folder in SCAN's layout: `X_ims.npy`, `X_caps.txt`, `X_ids.txt` for each split X.

Rows of `X_ims.npy` come once an image, or five times, once a caption ("5x"). Lines of `X_ids.txt`
are one an image or one a caption.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from ascl_plugin.npy_file import NpyFile

REPEATS = 5
IMAGES, CAPTIONS, IDS = "_ims.npy", "_caps.txt", "_ids.txt"


@dataclass(frozen=True)
class ScanSplit:
    """One split of the folder.

    Attributes:
        ids: ids of its images, from `X_ids.txt`; else "X-0", "X-1", ...
        repeat: rows of `X_ims.npy` for an image, 1 or 5.
        captions: all lines of `X_caps.txt`, or None without one.
    """

    ids: list[str]
    repeat: int
    captions: list[str] | None


def split_names(folder: Path, suffix: str) -> list[str]:
    """Return the names X of the files `X<suffix>`, without `test` where there is `testall`."""
    names = sorted(path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}"))
    return [n for n in names if not (n == "test" and "testall" in names)]


def read_split(folder: Path, name: str) -> ScanSplit:
    """Return images and captions of split `name`.

    Raises:
        ValueError: numbers of rows, captions and ids that do not fit each other; neither rows nor
            ids to count images by.
    """
    array, captions = folder / f"{name}{IMAGES}", read_lines(folder / f"{name}{CAPTIONS}")
    named, repeat = read_lines(folder / f"{name}{IDS}"), 1
    if array.exists():
        rows = NpyFile(array)
        images = rows.shape[0] if rows.shape else 0
        if (captions is None or len(captions) == images) and _comes_in_fives(rows):
            repeat = REPEATS
        images //= repeat
    elif named is not None:
        images = len(dict.fromkeys(named))
    else:
        raise ValueError(
            f"{folder}: {name}{CAPTIONS} alone does not divide captions among images; "
            f"expected {name}{IMAGES} or {name}{IDS} beside it"
        )
    if captions is not None and (not images or len(captions) % images):
        raise ValueError(
            f"{folder / (name + CAPTIONS)}: {len(captions)} captions for {images} images; expected "
            "as many for each"
        )
    return ScanSplit(_ids(folder, name, named, images), repeat, captions)


def _comes_in_fives(rows: NpyFile) -> bool:
    """Return True if the first, the middle and the last five rows are one image each."""
    groups, rest = divmod(rows.shape[0] if len(rows.shape) > 1 else 0, REPEATS)
    if rest or not groups:
        return False
    for group in {0, groups // 2, groups - 1}:
        first = rows.row(group * REPEATS).tobytes()
        for place in range(1, REPEATS):
            if rows.row(group * REPEATS + place).tobytes() != first:
                return False
    return True


def _ids(folder: Path, name: str, named: list[str] | None, images: int) -> list[str]:
    numbered = [f"{name}-{row}" for row in range(images)]
    if named is None:
        return numbered
    where = folder / f"{name}{IDS}"
    if not images or not named or len(named) % images:
        raise ValueError(f"{where}: {len(named)} ids for {images} images")
    each = len(named) // images
    groups = [set(named[i : i + each]) for i in range(0, len(named), each)]
    if any(len(group) > 1 for group in groups):
        warnings.warn(
            f"{where} names captions, not images: images are called {name}-0, {name}-1, ...",
            stacklevel=2,
        )
        return numbered
    return [group.pop() for group in groups]


def read_lines(path: Path) -> list[str] | None:
    """Return the lines of a file, stripped; None if it does not exist."""
    if not path.exists():
        return None
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() also parts at U+2028
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is no UTF-8") from error
    return [line.strip() for line in lines[: -1 if lines[-1] == "" else None]]
