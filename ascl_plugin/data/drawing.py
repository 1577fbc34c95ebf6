"""Paint the objects of the embedded scenes on their grounds, and lay scenes out on one sheet.

Everything is outlined in the detail ink, near-black (grey on black objects), so that an
object stays visible on its ground. Painting happens at twice the wanted size and is halved at the
end, which gives clean edges.
"""

from __future__ import annotations

import functools
import io
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    from PIL import Image, ImageDraw, ImageFont
except ImportError as error:
    raise ImportError('scenes need Pillow: pip install "ascl-plugin[recipes]"') from error

from ascl_plugin.data.shapes import FILL, NOUNS
from ascl_plugin.disk import written

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

# What the contact sheet says beside a picture: column of the row, label, colour of the label.
_LINES: tuple[tuple[str, str, RGB], ...] = (
    ("caption", "caption", (70, 70, 80)),
    ("negative", "negative (I)", (190, 30, 40)),
    ("richer", "richer (II)", (20, 120, 60)),
    ("shorter", "shorter (III)", (30, 90, 170)),
)


@dataclass(frozen=True)
class Item:
    """One drawn object.

    Attributes:
        noun: A key of `NOUNS`.
        colour: A key of `COLOURS`.
        x: Centre from the left edge, in image widths (0 to 1).
        y: Centre from the top edge, in image heights (0 to 1).
        size: Side of its box, in image widths.
    """

    noun: str
    colour: str
    x: float
    y: float
    size: float


def draw(items: Sequence[Item], ground: str, image_size: int, rng: random.Random) -> Image.Image:
    """Paint the items on a ground.

    Args:
        items: What to paint, later ones over earlier ones.
        ground: A key of `GROUNDS`.
        image_size: Side of the square picture in pixels.
        rng: Chooses which part of the ground's grain is seen.

    Returns:
        An RGB picture of `image_size` x `image_size` pixels.
    """
    side = 2 * image_size
    left, top = rng.randrange(side), rng.randrange(side)
    canvas = _grain(ground, side).crop((left, top, left + side, top + side))
    pencil = ImageDraw.Draw(canvas)
    for item in items:
        _paint(pencil, item, side)
    return canvas.reduce(2)


def png(image: Image.Image) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def contact_sheet(dataset: Any, rows: Sequence[int], path: str | os.PathLike[str]) -> None:
    """Write a picture of some scenes, two a line at twice their size, with caption 0 and variants.

    Args:
        dataset: A dataset of `ascl_plugin.data.scenes.make`.
        rows: Which rows of it to show.
        path: PNG file to write; an old one is replaced once the new one is whole.
    """
    chosen = [dataset[row] for row in rows]
    pictures = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in chosen]
    side, gap, text_width = 2 * pictures[0].width, 16, 330
    texts = [_text(row, text_width) for row in chosen]
    width = side + text_width + 3 * gap
    height = max(side, *(text.height for text in texts)) + gap
    sheet = Image.new("RGB", (2 * width, -(-len(chosen) // 2) * height + gap), "white")
    for k, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        left, top = gap + k % 2 * width, gap + k // 2 * height
        sheet.paste(picture.resize((side, side)), (left, top))
        sheet.paste(text, (left + side + gap, top))
    with written(Path(path)) as aside:
        aside.write_bytes(png(sheet))


def _text(row: Mapping[str, Any], width: int) -> Image.Image:
    """Caption 0 and its variants, each a label with the words wrapped below it."""
    label_font, font = ImageFont.load_default(size=11), ImageFont.load_default(size=14)
    canvas = Image.new("RGB", (width, 400), "white")
    pencil, top = ImageDraw.Draw(canvas), 0
    for column, label, colour in _LINES:
        pencil.text((0, top), label, fill=colour, font=label_font)
        top += 13
        words = (row["captions"][0] if column == "caption" else row[column]).split()
        while words:
            fit = len(words)
            while fit > 1 and font.getlength(" ".join(words[:fit])) > width:
                fit -= 1
            pencil.text((0, top), " ".join(words[:fit]), fill=_DARK, font=font)
            words, top = words[fit:], top + 16
        top += 6
    return canvas.crop((0, 0, width, top))


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
    """A ground twice as wide and high as the canvas, from which scenes cut different parts."""
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
