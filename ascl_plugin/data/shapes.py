"""The objects of the embedded scenes as tables of shapes.

Every noun is a short list of shapes in a box from -1 to 1 (x to the right, y down), later ones over
earlier ones, in two inks: FILL, the colour that a caption names, and DETAIL, which also outlines.
"""

from __future__ import annotations

import math
from typing import NamedTuple

FILL, DETAIL = "fill", "detail"


class Shape(NamedTuple):
    """One stroke of an object.

    Attributes:
        kind: "poly" (corners x, y, x, y, ...), "oval" (box x0, y0, x1, y1) or "line" (points).
        ink: FILL or DETAIL.
        xy: coordinates, from -1 to 1.
        width: width of a line, in half box sides; outlines have a width of their own.
    """

    kind: str
    ink: str
    xy: tuple[float, ...]
    width: float = 0.0


def _poly(*xy: float, ink: str = FILL) -> Shape:
    return Shape("poly", ink, xy)


def _oval(x: float, y: float, rx: float, ry: float | None = None, ink: str = FILL) -> Shape:
    ry = rx if ry is None else ry
    return Shape("oval", ink, (x - rx, y - ry, x + rx, y + ry))


def _line(width: float, *xy: float, ink: str = DETAIL) -> Shape:
    return Shape("line", ink, xy, width)


def _rect(x0: float, y0: float, x1: float, y1: float, ink: str = FILL) -> Shape:
    return Shape("poly", ink, (x0, y0, x1, y0, x1, y1, x0, y1))


def _round(
    x: float, y: float, rx: float, ry: float, start: float, end: float, steps: int = 16
) -> tuple[float, ...]:
    """Return points of an elliptic arc; degrees, 0 to the right, 90 below."""
    angles = [math.radians(start + (end - start) * k / steps) for k in range(steps + 1)]
    return tuple(v for a in angles for v in (x + rx * math.cos(a), y + ry * math.sin(a)))


def _star(x: float, y: float, outer: float, inner: float, tips: int) -> tuple[float, ...]:
    angles = [math.pi * k / tips for k in range(2 * tips)]
    radii = [inner if k % 2 else outer for k in range(2 * tips)]
    pairs = zip(angles, radii, strict=True)
    return tuple(v for a, r in pairs for v in (x + r * math.sin(a), y - r * math.cos(a)))


NOUNS: dict[str, tuple[Shape, ...]] = {
    "ball": (
        _oval(0, 0, 0.94),
        _line(0.16, *_round(-1.25, 0, 0.9, 1.1, -48, 48)),
        _line(0.16, *_round(1.25, 0, 0.9, 1.1, 132, 228)),
    ),
    "bell": (
        _oval(0, 0.72, 0.24, ink=DETAIL),
        _poly(-0.95, 0.62, -0.62, 0.3, *_round(0, -0.2, 0.55, 0.62, 180, 360), 0.62, 0.3, 0.95,
              0.62),
        _oval(0, -0.85, 0.14, ink=DETAIL),
    ),
    "boat": (
        _line(0.14, 0, -0.95, 0, 0.4),
        _poly(0.1, -0.9, 0.1, 0.22, 0.85, 0.22),
        _poly(-0.1, -0.6, -0.1, 0.22, -0.65, 0.22),
        _poly(-0.98, 0.35, 0.98, 0.35, 0.6, 0.92, -0.6, 0.92),
    ),
    "bottle": (
        _rect(-0.2, -0.98, 0.2, -0.72, ink=DETAIL),
        _poly(-0.17, -0.72, 0.17, -0.72, 0.2, -0.35, 0.46, -0.05, 0.46, 0.97, -0.46, 0.97, -0.46,
              -0.05, -0.2, -0.35),
        _rect(-0.46, 0.3, 0.46, 0.6, ink=DETAIL),
    ),
    "box": (
        _rect(-0.78, -0.3, 0.78, 0.88),
        _rect(-0.95, -0.75, 0.95, -0.3),
        _rect(-0.16, -0.75, 0.16, 0.88, ink=DETAIL),
    ),
    "car": (
        _poly(-0.55, -0.05, -0.36, -0.6, 0.36, -0.6, 0.62, -0.05),
        _poly(-0.34, -0.08, -0.24, -0.42, 0.24, -0.42, 0.38, -0.08, ink=DETAIL),
        _rect(-0.98, -0.05, 0.98, 0.4),
        _oval(-0.52, 0.42, 0.27, ink=DETAIL),
        _oval(0.52, 0.42, 0.27, ink=DETAIL),
    ),
    "clock": (
        _line(0.22, -0.5, 0.6, -0.7, 0.95),
        _line(0.22, 0.5, 0.6, 0.7, 0.95),
        _oval(-0.6, -0.68, 0.3),
        _oval(0.6, -0.68, 0.3),
        _oval(0, 0.06, 0.82),
        _line(0.16, 0, -0.48, 0, 0.08, 0.4, 0.3),
    ),
    "crown": (
        _poly(-0.85, 0.75, -0.98, -0.6, -0.45, 0, 0, -0.85, 0.45, 0, 0.98, -0.6, 0.85, 0.75),
        _rect(-0.85, 0.42, 0.85, 0.75, ink=DETAIL),
    ),
    "cup": (
        _oval(0.55, -0.02, 0.42, 0.4, ink=DETAIL),
        _oval(0.55, -0.02, 0.2, 0.18),
        _poly(-0.9, -0.65, 0.55, -0.65, 0.38, 0.75, -0.73, 0.75),
        _oval(-0.175, -0.65, 0.72, 0.17, ink=DETAIL),
    ),
    "fish": (
        _poly(0.35, 0, 0.97, -0.55, 0.97, 0.55),
        _oval(-0.22, 0, 0.74, 0.5),
        _oval(-0.58, -0.12, 0.11, ink=DETAIL),
        _line(0.1, *_round(-0.5, 0, 0.42, 0.4, -55, 55)),
    ),
    "flag": (
        _line(0.18, -0.8, -0.95, -0.8, 0.97),
        _poly(-0.72, -0.88, 0.95, -0.88, 0.55, -0.38, 0.95, 0.12, -0.72, 0.12),
    ),
    "flower": (
        *(_oval(0.56 * math.sin(a), -0.56 * math.cos(a), 0.38)
          for a in (math.radians(60 * k) for k in range(6))),
        _oval(0, 0, 0.32, ink=DETAIL),
    ),
    "hat": (
        _rect(-0.55, -0.8, 0.55, 0.5),
        _rect(-0.55, 0.1, 0.55, 0.36, ink=DETAIL),
        _oval(0, 0.52, 0.97, 0.22),
    ),
    "heart": (
        _poly(0, 0.92, *_round(-0.47, -0.32, 0.48, 0.5, 155, 350),
              *_round(0.47, -0.32, 0.48, 0.5, 190, 385)),
    ),
    "house": (
        _rect(-0.72, -0.12, 0.72, 0.9),
        _poly(-0.98, -0.1, 0, -0.95, 0.98, -0.1),
        _rect(-0.2, 0.3, 0.2, 0.9, ink=DETAIL),
    ),
    "key": (
        _poly(-0.1, -0.15, 0.97, -0.15, 0.97, 0.45, 0.75, 0.45, 0.75, 0.15, 0.5, 0.15, 0.5, 0.38,
              0.28, 0.38, 0.28, 0.15, -0.1, 0.15),
        _oval(-0.48, 0, 0.5),
        _oval(-0.52, 0, 0.2, ink=DETAIL),
    ),
    "kite": (
        _line(0.1, 0, 0.35, 0.25, 0.6, -0.2, 0.8, 0.1, 0.98),
        _poly(0, -0.97, 0.68, -0.32, 0, 0.5, -0.68, -0.32),
        _line(0.1, 0, -0.9, 0, 0.45),
        _line(0.1, -0.62, -0.32, 0.62, -0.32),
    ),
    "ladder": (
        *(_line(0.36, -0.45, y, 0.45, y) for y in (-0.6, -0.02, 0.56)),
        *(_line(0.2, -0.45, y, 0.45, y, ink=FILL) for y in (-0.6, -0.02, 0.56)),
        _rect(-0.66, -0.97, -0.34, 0.97),
        _rect(0.34, -0.97, 0.66, 0.97),
    ),
    "moon": (
        _poly(*_round(0.15, 0, 0.95, 0.95, 50, 310, 24), *_round(0.7, 0, 0.73, 0.73, 266, 94)),
    ),
    "mushroom": (
        _poly(-0.25, 0, 0.25, 0, 0.38, 0.92, -0.38, 0.92, ink=DETAIL),
        _poly(*_round(0, 0.08, 0.95, 0.98, 180, 360)),
        _oval(-0.4, -0.28, 0.15, ink=DETAIL),
        _oval(0.1, -0.55, 0.15, ink=DETAIL),
        _oval(0.48, -0.18, 0.15, ink=DETAIL),
    ),
    "rocket": (
        _poly(-0.2, 0.6, 0.2, 0.6, 0, 0.98, ink=DETAIL),
        _poly(-0.3, 0.05, -0.75, 0.72, -0.3, 0.6),
        _poly(0.3, 0.05, 0.75, 0.72, 0.3, 0.6),
        _poly(0, -0.98, 0.3, -0.55, 0.36, 0.1, 0.3, 0.68, -0.3, 0.68, -0.36, 0.1, -0.3, -0.55),
        _oval(0, -0.22, 0.18, ink=DETAIL),
    ),
    "star": (_poly(*_star(0, 0.08, 1.0, 0.42, 5)),),
    "tree": (
        _rect(-0.17, 0.4, 0.17, 0.97, ink=DETAIL),
        _poly(0, -0.15, 0.8, 0.6, -0.8, 0.6),
        _poly(0, -0.6, 0.64, 0.15, -0.64, 0.15),
        _poly(0, -0.97, 0.48, -0.32, -0.48, -0.32),
    ),
    "umbrella": (
        _line(0.15, 0, 0, *_round(0.2, 0.68, 0.2, 0.24, 180, 0)),
        _poly(*_round(0, 0.1, 0.97, 1.0, 180, 360), *_round(0.65, 0.1, 0.32, 0.2, 0, -180, 6),
              *_round(0, 0.1, 0.32, 0.2, 0, -180, 6), *_round(-0.65, 0.1, 0.32, 0.2, 0, -180, 6)),
    ),
}  # fmt: skip
