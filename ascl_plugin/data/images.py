"""Decoding of a cell of the `image` column: RGB, upright, whole, or an error that names it."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping, Sequence

from ascl_plugin.interfaces import Row, Rows

try:
    from PIL import Image, ImageOps
except ImportError as error:
    raise ImportError('decoding images needs Pillow: pip install "ascl-plugin[recipes]"') from error

#: Formats that are decoded. EPS is none: Pillow hands it to Ghostscript, which runs its program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")


def load_image(cell: Row | Image.Image, image_id: str) -> Image.Image:
    """Return the picture of one row, as RGB, turned upright by its EXIF orientation.

    A picture of more pixels than ``PIL.Image.MAX_IMAGE_PIXELS`` (89 million unless changed; None
    lifts the limit) is refused, where Pillow itself only warns: a few kilobytes can claim
    gigabytes of pixels.

    Args:
        cell: ``{"path": ..., "bytes": ...}`` as `datasets.Image(decode=False)` gives it, bytes
            first where both are there, and, for a part of the picture, "box": its left, top, width
            and height in pixels; or a PIL image.
        image_id: the row's id, for errors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: neither path nor bytes; no image of `FORMATS`, a damaged or truncated one; too
            many pixels; a box outside the picture; a path to a folder, pipe or device.
    """
    if isinstance(cell, Image.Image):
        return _rgb(ImageOps.exif_transpose(cell))
    data, path = cell.get("bytes"), cell.get("path")
    source = io.BytesIO(data) if data is not None else path
    if source is None:
        raise ValueError(f"image {image_id}: the row has neither a path nor bytes")
    where = f"image {image_id} ({path if path else 'embedded'})"
    try:
        if data is None and not stat.S_ISREG(os.stat(path or "").st_mode):
            raise ValueError("no regular file")
        with Image.open(source, formats=_FORMATS) as picture:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and picture.width * picture.height > limit:
                raise Image.DecompressionBombError(
                    f"{picture.width} x {picture.height} pixels, more than "
                    f"PIL.Image.MAX_IMAGE_PIXELS = {limit}"
                )
            whole = _rgb(ImageOps.exif_transpose(picture))
            return _part(whole, cell["box"]) if cell.get("box") else whole
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where}: no such file") from error
    # Pillow's decoders fail on damaged files in many ways: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise ValueError(f"{where} does not decode: {error}") from error


def check_pictures(splits: Mapping[str, Rows]) -> None:
    """Check that the picture of every row of every split is there; none is decoded.

    Raises:
        FileNotFoundError: the message counts those that are not, and names the first three.
    """
    lacking, count = [], 0
    for name, rows in splits.items():
        for image_id, cell in zip(rows["image_id"][:], rows["image"][:], strict=True):
            path = (cell or {}).get("path")
            if path and cell.get("bytes") is None:
                count += 1
                if not os.path.exists(path):
                    lacking.append(f"{name} image {image_id} ({path})")
    if lacking:
        more = f" and {len(lacking) - 3:,} more" if len(lacking) > 3 else ""
        raise FileNotFoundError(
            f"{len(lacking):,} of {count:,} pictures are not there: {', '.join(lacking[:3])}{more}"
        )


def _part(picture: Image.Image, box: Sequence[int]) -> Image.Image:
    """Return the part of a picture in a box; what lies outside is cut off."""
    left, top, width, height = box
    right, bottom = min(left + width, picture.width), min(top + height, picture.height)
    left, top = max(left, 0), max(top, 0)
    if left >= right or top >= bottom:
        raise ValueError(f"box {list(box)} lies outside {picture.width} x {picture.height} pixels")
    return picture.crop((left, top, right, bottom))


Image.init()
_FORMATS = [name for name in FORMATS if name in Image.OPEN]  # Pillow has AVIF since 11.3


def _rgb(picture: Image.Image) -> Image.Image:
    """Convert to RGB, scaling 16 bits of grey to 8: `convert` would cut all above 255 to white."""
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        picture = picture.convert("I").point(lambda grey: grey * (1 / 256)).convert("L")
    return picture.convert("RGB")
