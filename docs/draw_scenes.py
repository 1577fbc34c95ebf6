"""Draw the picture of scenes in the README: each with its first caption and three variants.

python docs/draw_scenes.py docs/scenes.png
"""

from __future__ import annotations

import argparse
import io
import textwrap

from PIL import Image, ImageDraw, ImageFont

from ascl_plugin.data import scenes

LABELS = (
    ("caption", "caption", (70, 70, 80)),
    ("negative", "negative (I)", (190, 30, 40)),
    ("richer", "richer (II)", (20, 120, 60)),
    ("shorter", "shorter (III)", (30, 90, 170)),
)
SIDE, WIDTH, HEIGHT, GAP = 192, 570, 250, 16


def main() -> None:
    """Write test scenes of seed 0, two a line at twice their size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", help="PNG file to write")
    parser.add_argument("--rows", type=int, nargs="+", default=[3, 7, 11, 14, 20, 29])
    options = parser.parse_args()
    rows = scenes.make("test", max(options.rows) + 1, seed=0).select(options.rows)
    sheet = Image.new("RGB", (2 * WIDTH, -(-len(rows) // 2) * HEIGHT), "white")
    for number, row in enumerate(rows):
        left, top = GAP + number % 2 * WIDTH, GAP + number // 2 * HEIGHT
        picture = Image.open(io.BytesIO(row["image"]["bytes"]))
        sheet.paste(picture.resize((SIDE, SIDE)), (left, top))
        write(ImageDraw.Draw(sheet), row | {"caption": row["captions"][0]}, left + SIDE + GAP, top)
    sheet.save(options.path)


def write(pencil: ImageDraw.ImageDraw, row: dict[str, str], left: int, top: int) -> None:
    """Write the caption and its variants, each below its label."""
    for column, label, colour in LABELS:
        pencil.text((left, top), label, colour, ImageFont.load_default(size=11))
        lines = textwrap.wrap(row[column], 49)
        font = ImageFont.load_default(size=14)
        for number, line in enumerate(lines):
            pencil.text((left, top + 13 + 16 * number), line, (34, 30, 38), font)
        top += 19 + 16 * len(lines)


if __name__ == "__main__":
    main()
