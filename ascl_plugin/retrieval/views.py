"""Views of a picture: itself, and its mirror image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ascl_plugin.interfaces import AnyRows, Row

if TYPE_CHECKING:
    from PIL.Image import Image

MIRRORED = "mirrored"  # column of a row that stands for the mirror image


class MirroredRows(Sequence[Row]):
    """Rows whose pictures are mirrored, left to right.

    Args:
        rows: rows with `image_id` and `image`.
    """

    def __init__(self, rows: AnyRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        return {**self.rows[index], MIRRORED: True}

    def __iter__(self) -> Iterator[Row]:
        return ({**row, MIRRORED: True} for row in self.rows)


def view_key(key: str, row: Row) -> str:
    """Return a key of the row's view; that of the picture itself is `key`."""
    return f"{key}|mirrored" if row.get(MIRRORED) else key


def view_of(picture: Image, row: Row) -> Image:
    """Return the row's view of its picture."""
    if not row.get(MIRRORED):
        return picture
    from PIL import ImageOps

    return ImageOps.mirror(picture)
