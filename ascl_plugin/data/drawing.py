"""Pictures of the embedded scenes: objects painted on their grounds.

Everything is outlined in the detail ink, near-black (grey on black objects), so that an
object stays visible on its ground. Painting happens at twice the wanted size and is halved at the
end, which gives clean edges.
"""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass

try:
    from PIL import Image, ImageDraw
except ImportError as error:
    raise ImportError('scenes need Pillow: pip install "ascl-plugin[recipes]"') from error

from ascl_plugin.data.shapes import FILL, NOUNS

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (222, 28, 36),
    "orange": (255, 138, 0),
    "yellow": (255, 226, 30),
    "green": (20, 145, 50),
    "blue": (32, 70, 225),
    "purple": (150, 45, 190),
    "white": (252, 252, 252),
    "black": (24, 24, 26),
}

# The ground's colour and the colour of the specks that give it a grain.
GROUNDS: dict[str, tuple[RGB, RGB]] = {
    "meadow": ((182, 226, 134), (140, 196, 96)),
    "sand": ((238, 212, 160), (214, 180, 120)),
    "snow": ((222, 231, 242), (255, 255, 255)),
    "night": ((80, 80, 122), (150, 152, 196)),
    "sea": ((120, 204, 220), (70, 164, 196)),
}

# A colour that would be hard to see on a ground is never drawn on it.
UNSEEN: dict[str, tuple[str, ...]] = {"snow": ("white",), "night": ("black", "blue")}

_DARK: RGB = (34, 30, 38)
_LIGHT: RGB = (160, 160, 168)


@dataclass(frozen=True)
class Item:
    """One drawn object.

    Attributes:
        noun: a key of `NOUNS`.
        colour: a key of `COLOURS`.
        x, y: centre from the left and the top edge, in image widths (0 to 1).
        size: side of its box, in image widths.
    """

    noun: str
    colour: str
    x: float
    y: float
    size: float


def draw(items: Sequence[Item], ground: str, image_size: int, rng: random.Random) -> Image.Image:
    """Paint the items on a ground.

    Args:
        items: objects, later ones over earlier ones.
        ground: a key of `GROUNDS`.
        image_size: side of the square RGB picture in pixels.
        rng: source of chance for the visible part of the ground's grain.
    """
    side = 2 * image_size
    left, top = rng.randrange(side), rng.randrange(side)
    canvas = _grain(ground, side).crop((left, top, left + side, top + side))
    pencil = ImageDraw.Draw(canvas)
    for item in items:
        _paint(pencil, item, side)
    return canvas.reduce(2)


def png(image: Image.Image) -> bytes:
    """Return the bytes of a picture's PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _paint(pencil: ImageDraw.ImageDraw, item: Item, side: int) -> None:
    fill = COLOURS[item.colour]
    detail = _LIGHT if item.colour == "black" else _DARK
    half = item.size * side / 2
    cx, cy = item.x * side, item.y * side
    edge = max(1, round(half * 0.07))
    for shape in NOUNS[item.noun]:
        ink = fill if shape.ink == FILL else detail
        xy = [value * half + (cy if k % 2 else cx) for k, value in enumerate(shape.xy)]
        if shape.kind == "line":
            pencil.line(xy, fill=ink, width=max(1, round(shape.width * half)), joint="curve")
        elif shape.kind == "oval":
            pencil.ellipse(xy, fill=ink, outline=detail, width=edge)
        else:
            pencil.polygon(xy, fill=ink)
            pencil.line([*xy, *xy[:4]], fill=detail, width=edge, joint="curve")


@functools.lru_cache(maxsize=32)
def _grain(ground: str, side: int) -> Image.Image:
    """Paint a ground twice as wide and high as the canvas; scenes cut different parts from it."""
    base, speck = GROUNDS[ground]
    rng = random.Random(ground)
    image = Image.new("RGB", (2 * side, 2 * side), base)
    pencil = ImageDraw.Draw(image)
    unit = side / 96
    for _ in range(220):
        x, y = rng.random() * 2 * side, rng.random() * 2 * side
        if ground == "sea":
            box = (x, y, x + 8 * unit, y + 5 * unit)
            pencil.arc(box, 180, 360, fill=speck, width=max(1, round(unit)))
        elif ground == "meadow":
            pencil.line((x, y, x + unit, y - 4 * unit), fill=speck, width=max(1, round(unit)))
        else:
            r = unit * (0.6 + rng.random())
            pencil.ellipse((x - r, y - r, x + r, y + r), fill=speck)
    return image
