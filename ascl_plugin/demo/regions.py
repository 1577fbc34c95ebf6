"""Where the regions of a picture are: cells of a grid, boxes, or nothing but numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ascl_plugin.data.images import load_image
from ascl_plugin.retrieval.evaluator import Evaluator


class Regions(NamedTuple):
    """Of one picture.

    Attributes:
        boxes: (K, 4) x, y, width, height as shares of the picture; None where they are not known.
        whole: whether that picture is the one of the row; False: the encoder's view of it.
        note: what to tell about them.
    """

    boxes: np.ndarray | None
    whole: bool
    note: str


def regions_of(evaluator: Evaluator, row: Mapping[str, Any], count: int) -> Regions:
    """Where the first `count` regions of a row's picture are.

    Region files may have boxes, a detector finds them again, and any other encoder whose regions
    are as many as a square grid has is taken for one of cells, row by row.
    """
    encoder: Any = evaluator.model.image_encoder
    if getattr(encoder, "from_files", False):
        inputs: Any = evaluator.images
        boxes = inputs.boxes(row)
        if boxes is None:
            return Regions(None, True, "The region files have no boxes: regions are numbered.")
        return _boxes(boxes[:count], row, "Boxes of the region files.")
    if hasattr(encoder, "detect"):
        picture = load_image(row["image"], row["image_id"])
        boxes = encoder.detect([picture])[0].boxes.cpu().numpy()
        return _boxes(boxes[:count], row, "Boxes of the detector.")
    side = math.isqrt(count)
    if side**2 != count:
        return Regions(None, True, "Where the encoder's regions are is not known: numbered.")
    grid = f"its {count} regions taken as a grid of {side} × {side}."
    return Regions(cells(side), False, f"The picture as the encoder sees it, {grid}")


def cells(side: int) -> np.ndarray:
    """(side squared, 4) cells of a grid, row by row, as shares."""
    down, across = np.divmod(np.arange(side**2), side)
    size = np.ones(side**2)
    return np.stack([across, down, size, size], 1) / side


def encoder_view(encoder: Any, picture: Image.Image) -> Image.Image:
    """The picture as `encoder.preprocess` resizes and crops it, in its own colours.

    How colours are normalised is read off a black and a white picture of the same size.
    """
    black, white, pixels = (
        encoder.preprocess(x)[:3]
        for x in (
            Image.new("RGB", picture.size, "black"),
            Image.new("RGB", picture.size, "white"),
            picture,
        )
    )
    shares = ((pixels - black) / (white - black)).clamp(0, 1)
    return Image.fromarray((shares * 255).round().byte().permute(1, 2, 0).numpy())


def _boxes(boxes: np.ndarray, row: Mapping[str, Any], note: str) -> Regions:
    """Of x0 y0 x1 y1 in pixels; as numbers alone, if they are of a picture of another size."""
    width, height = load_image(row["image"], row["image_id"]).size
    edge = np.array([width, height, width, height], dtype=np.float64)
    if (boxes < -1).any() or (boxes > edge + 1).any():
        note = f"The boxes do not fit a picture of {width} × {height} pixels: regions are numbered."
        return Regions(None, True, note)
    shares = np.clip(boxes / edge, 0, 1)
    return Regions(np.concatenate([shares[:, :2], shares[:, 2:] - shares[:, :2]], 1), True, note)
