"""The embedded dataset: drawn scenes whose information sets are known exactly.

A scene is three to five groups of objects on a ground. The content of the picture is a set of
facts, the A of Definition 1 (ACF-R+ paper, section 3.2); that of a caption is one, too, its B:

    noun:car  car:red  car:large  car:left  count:car:1  ground:snow

- Nouns are distinct within a scene, so "car" always means one group.
- A number is always said and always exact: "a car" says `count:car:1` and "two cars" says
  `count:car:2`, so "a car" is never said of two.
- A place is a fact of a group only if it holds for each of its members: `left`, `right`, `top`,
  `bottom` are the outer columns and rows of a 3 x 3 layout, `middle` is its centre; a group may
  have two ("at the top left"), one or none.

Beside five captions every row carries the three variants of its caption 0 (Definitions 2-4):
`negative` adds an absent object (Asymmetry-I), `richer` a present one that caption 0 left out
(Asymmetry-II), `shorter` drops one that caption 0 mentions (Asymmetry-III). `negative` and `richer`
are the same sentence but for the object added, at a random place among the mentions: number, size
and amount of detail are alike; the negative's noun is not in the picture, its colour and place are
drawn anew. Only the picture tells the two apart, nothing in the wording does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ascl_plugin.data.descriptions import captions_of, variants_of
from ascl_plugin.data.drawing import COLOURS, GROUNDS, UNSEEN, Item, draw, png
from ascl_plugin.data.rows import ROW, SPLITS
from ascl_plugin.data.sentences import Mention, Sentence
from ascl_plugin.data.shapes import NOUNS

try:
    import datasets
except ImportError as error:
    raise ImportError('scenes need datasets: pip install "ascl-plugin[recipes]"') from error

Cell = tuple[int, int]

IMAGE_SIZE = 96  # side of the square pictures, in pixels

#: The columns of every source of data, and those of scenes alone.
COLUMNS = datasets.Features(
    {
        **ROW,
        "facts": datasets.List(datasets.Value("string")),
        "caption_facts": datasets.List(datasets.List(datasets.Value("string"))),
        "negative": datasets.Value("string"),
        "negative_facts": datasets.List(datasets.Value("string")),
        "richer": datasets.Value("string"),
        "richer_facts": datasets.List(datasets.Value("string")),
        "shorter": datasets.Value("string"),
        "shorter_facts": datasets.List(datasets.Value("string")),
    }
)

# In image widths: side of an object's box, distance of the layout's columns, reach of the jitter.
# Large objects are as wide as fits beside a small one, and stay in place.
_SIZES = {"large": 0.37, "small": 0.26}
_PITCH = (1 - _SIZES["large"]) / 2
_JITTER = {"large": 0.0, "small": 0.02}
_ROWS, _COLUMNS = {0: "top", 2: "bottom"}, {0: "left", 2: "right"}


@dataclass(frozen=True)
class Scene:
    """The content of a picture.

    Attributes:
        groups: complete mentions, nothing left out.
        cells: for each group, the (column, row) cells of its members in the 3 x 3 layout.
        ground: a key of `GROUNDS`.
    """

    groups: tuple[Mention, ...]
    cells: tuple[tuple[Cell, ...], ...]
    ground: str

    def facts(self) -> set[str]:
        """Return the information set A of the picture."""
        return Sentence(self.groups, self.ground, "", "and").facts()


def make(split: str, size: int, seed: int = 0) -> datasets.Dataset:
    """Draw and describe the first `size` scenes of a split.

    Scene number n depends on `seed`, `split` and n alone: a smaller size is a prefix of a larger.

    Args:
        split: "train", "val" or "test".
        size: number of scenes, at least 1.
        seed: seed of the drawing.

    Returns:
        One row per scene with the columns of `COLUMNS`; `image` holds {"bytes": PNG, "path": None}.

    Raises:
        ValueError: an unknown split; no scenes.
    """
    if split not in SPLITS:
        raise ValueError(f"drawn scenes have no split {split!r}; they have {', '.join(SPLITS)}")
    if size < 1:
        raise ValueError(f"size is {size}; a split needs at least 1 scene")
    rows = [_row(split, number, seed) for number in range(size)]
    return datasets.Dataset.from_list(rows, features=COLUMNS)


def _row(split: str, number: int, seed: int) -> dict[str, object]:
    rng = random.Random(f"{seed}/{split}/{number}")
    scene = _scene(rng)
    captions = captions_of(rng, scene.groups, scene.ground)
    variants = variants_of(rng, scene.groups, captions[0])
    image_id = f"scene-{split}-{number:05d}"
    row: dict[str, object] = {
        "image_id": image_id,
        "image": {"bytes": _picture(rng, scene), "path": None},
        "captions": [caption.words() for caption in captions],
        "caption_ids": [f"{image_id}-{k}" for k in range(len(captions))],
        "split": split,
        "facts": sorted(scene.facts()),
        "caption_facts": [sorted(caption.facts()) for caption in captions],
    }
    for name, sentence in variants.items():
        row[name], row[f"{name}_facts"] = sentence.words(), sorted(sentence.facts())
    return row


def _scene(rng: random.Random) -> Scene:
    ground = rng.choice(list(GROUNDS))
    colours = [colour for colour in COLOURS if colour not in UNSEEN.get(ground, ())]
    counts, cells = _layout(rng, rng.choice((3, 4, 4, 5, 5)))
    large: set[Cell] = set()
    groups = []
    for noun, count, own in zip(rng.sample(list(NOUNS), len(counts)), counts, cells, strict=True):
        # Two large objects side by side would overlap, and so would the members of a large group.
        x, y = own[0]
        crowded = large & {(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)}
        size = "small" if count > 1 or crowded or rng.random() < 0.3 else "large"
        large |= {(x, y)} if size == "large" else set()
        groups.append(Mention(noun, count, rng.choice(colours), size, _places(own)))
    order = rng.sample(range(len(groups)), len(groups))
    return Scene(tuple(groups[k] for k in order), tuple(cells[k] for k in order), ground)


def _layout(rng: random.Random, groups: int) -> tuple[list[int], list[tuple[Cell, ...]]]:
    """Draw the groups' sizes and give each a straight run of free cells, the longest first."""
    while True:
        counts = sorted(rng.choices((1, 2, 3), (6, 3, 1), k=groups), reverse=True)
        free = {(x, y) for x in range(3) for y in range(3)}
        cells: list[tuple[Cell, ...]] = []
        for count in counts:
            runs = {
                tuple((x + dx * k, y + dy * k) for k in range(count))
                for x, y in free
                for dx, dy in ((1, 0), (0, 1))
            }
            open_runs = sorted(run for run in runs if free.issuperset(run))
            if not open_runs:
                break
            cells.append(rng.choice(open_runs))
            free.difference_update(cells[-1])
        else:
            return counts, cells


def _places(cells: Sequence[Cell]) -> tuple[str, ...]:
    if set(cells) == {(1, 1)}:
        return ("middle",)
    columns, rows = ({cell[axis] for cell in cells} for axis in (0, 1))
    row = _ROWS.get(min(rows)) if len(rows) == 1 else None
    column = _COLUMNS.get(min(columns)) if len(columns) == 1 else None
    return tuple(place for place in (row, column) if place)


def _picture(rng: random.Random, scene: Scene) -> bytes:
    items = []
    for group, cells in zip(scene.groups, scene.cells, strict=True):
        reach = _JITTER[group.size]
        for x, y in cells:
            across = 0.5 + (x - 1) * _PITCH + rng.uniform(-reach, reach)
            down = 0.5 + (y - 1) * _PITCH + rng.uniform(-reach, reach)
            items.append(Item(group.noun, group.colour, across, down, _SIZES[group.size]))
    return png(draw(items, scene.ground, IMAGE_SIZE, rng))
