"""Places of the regions of a picture: cells of a grid, boxes, or nothing but numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from ascl_plugin.data.images import load_image
from ascl_plugin.interfaces import ImageEncoder, Row
from ascl_plugin.retrieval.evaluator import Evaluator


class RegionBoxes(NamedTuple):
    """Boxes of the regions of one picture.

    Attributes:
        boxes: (K, 4) x, y, width, height as shares of the picture; None if they are not known.
        on_picture: True if the picture is that of the row, False if it is the encoder's view of it.
        note: a sentence about the boxes.
    """

    boxes: np.ndarray | None
    on_picture: bool
    note: str


def regions_of(evaluator: Evaluator, row: Row, count: int) -> RegionBoxes:
    """Return the boxes of the first `count` regions of a row's picture.

    Region files may have boxes, and a detector finds them again. Any other encoder with a square
    number of regions is assumed to see a grid of cells, row by row.
    """
    encoder = evaluator.model.image_encoder
    if getattr(encoder, "from_files", False):
        boxes = evaluator.images.boxes(row)  # type: ignore[attr-defined]  # region files have them
        if boxes is None:
            return RegionBoxes(None, True, "The region files have no boxes: regions are numbered.")
        return _boxes(boxes[:count], row, "Boxes of the region files.")
    if hasattr(encoder, "detect"):
        picture = load_image(row["image"], row["image_id"])
        boxes = encoder.detect([picture])[0].boxes.cpu().numpy()
        return _boxes(boxes[:count], row, "Boxes of the detector.")
    side = math.isqrt(count)
    if side**2 != count:
        return RegionBoxes(None, True, "Where the encoder's regions are is not known: numbered.")
    grid = f"its {count} regions taken as a grid of {side} × {side}."
    return RegionBoxes(cells(side), False, f"The picture as the encoder sees it, {grid}")


def cells(side: int) -> np.ndarray:
    """Return (side squared, 4) cells of a grid, row by row, as shares."""
    down, across = np.divmod(np.arange(side**2), side)
    size = np.ones(side**2)
    return np.stack([across, down, size, size], 1) / side


def encoder_view(encoder: ImageEncoder, picture: Image.Image) -> Image.Image:
    """Return the picture as `encoder.preprocess` resizes and crops it, in its own colors.

    A black and a white picture of the same size tell how colors are normalized.
    """
    plain = [Image.new("RGB", picture.size, color) for color in ("black", "white")]
    black, white, pixels = (encoder.preprocess(x)[:3] for x in (*plain, picture))
    shares = ((pixels - black) / (white - black)).clamp(0, 1)
    return Image.fromarray((shares * 255).round().byte().permute(1, 2, 0).numpy())


def _boxes(boxes: np.ndarray, row: Row, note: str) -> RegionBoxes:
    """Convert x0 y0 x1 y1 in pixels to shares; drop boxes of a picture of another size."""
    width, height = load_image(row["image"], row["image_id"]).size
    edge = np.array([width, height, width, height], dtype=np.float64)
    if (boxes < -1).any() or (boxes > edge + 1).any():
        note = f"The boxes do not fit a picture of {width} × {height} pixels: regions are numbered."
        return RegionBoxes(None, True, note)
    shares = np.clip(boxes / edge, 0, 1)
    return RegionBoxes(
        np.concatenate([shares[:, :2], shares[:, 2:] - shares[:, :2]], 1), True, note
    )
