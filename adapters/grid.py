"""Grids of regions: K cells, as many down as across."""

from __future__ import annotations

import math


def grid_side(num_regions: int) -> int:
    """Cells a side of a grid of `num_regions`.

    Raises:
        ValueError: no square number, or none above 0.
    """
    side = math.isqrt(max(num_regions, 0))
    if side == 0 or side**2 != num_regions:
        raise ValueError(f"num_regions must be a square (36 = 6 x 6), got {num_regions}")
    return side
