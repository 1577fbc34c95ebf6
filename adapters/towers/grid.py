"""A feature map as a square grid of regions."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional


def grid_side(num_regions: int) -> int:
    """Return the side of a square grid of `num_regions` cells.

    Raises:
        ValueError: no square number, or below 1.
    """
    side = math.isqrt(max(num_regions, 0))
    if side == 0 or side**2 != num_regions:
        raise ValueError(f"num_regions must be a square (36 = 6 x 6), got {num_regions}")
    return side


def grid_cells(feature_map: Tensor, side: int | None) -> Tensor:
    """Return the cells of a map (I, C, h, w) row by row: (I, K, C).

    Args:
        feature_map: map of I images.
        side: the map is averaged to side x side cells; None keeps its own.
    """
    if side is not None:
        feature_map = functional.adaptive_avg_pool2d(feature_map, side)
    return feature_map.flatten(2).transpose(1, 2)
