"""Valid files of captions and pictures, and how to read them whole."""

from __future__ import annotations

import base64
import io
import json
import random
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_mutation import mutate_bytes


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


def karpathy(folder: Path) -> None:
    entries = []
    for number, split in enumerate(("train", "train", "val", "test")):
        write(folder / "images" / f"{number}.png", PNG)
        sentences = [{"raw": f"caption {k}", "sentid": 5 * number + k} for k in range(2)]
        entries.append(
            {"filename": f"{number}.png", "split": split, "sentences": sentences, "cocoid": number}
        )
    entries[1]["filepath"] = "val2014"
    write(folder / "dataset_x.json", {"images": entries})


def coco(folder: Path) -> None:
    for i in (1, 2):
        write(folder / "val2017" / f"{i}.png", PNG)
    write(
        folder / "annotations" / "captions_val2017.json",
        {
            "images": [{"id": i, "file_name": f"{i}.png"} for i in (1, 2)],
            "annotations": [{"id": 9 + i, "image_id": i, "caption": f"c {i}"} for i in (1, 2, 1)],
        },
    )


def read_splits(folder: Path) -> None:
    from ascl_plugin.data.readers import caption_to_image, read

    for split in read(folder).values():
        caption_to_image(split)
        for row in split:
            assert row["image"] is None or str(folder) in row["image"]["path"]


def read_ids(folder: Path) -> None:
    from ascl_plugin.data.annotations import read_coco_captions

    name = "ids.npy" if (folder / "ids.npy").exists() else "ids.txt"
    read_coco_captions(folder / "annotations" / "captions_val2017.json", ids=folder / name)


def ids_npy(folder: Path) -> None:
    coco(folder)
    np.save(folder / "ids.npy", np.array([2, 1]))


def ids_txt(folder: Path) -> None:
    coco(folder)
    write(folder / "ids.txt", "2\n1\n")


def sugarcrepe(folder: Path) -> None:
    write(folder / "a.png", PNG)
    entry = {"filename": "a.png", "caption": "a cat", "negative_caption": "a dog"}
    write(folder / "add_obj.json", {str(i): entry for i in range(3)})


def read_sugarcrepe(folder: Path) -> None:
    from ascl_plugin.data.sugarcrepe import read_sugarcrepe

    read_sugarcrepe(folder)


def scan(folder: Path) -> None:
    np.save(folder / "train_ims.npy", np.arange(24, dtype=np.float32).reshape(3, 2, 4))
    write(folder / "train_caps.txt", "".join(f"caption {i}\n" for i in range(6)))
    write(folder / "train_ids.txt", "a\nb\nc\n")


def parquet(folder: Path) -> None:
    import datasets

    columns = {
        "image": [{"path": None, "bytes": PNG}] * 3, "image_id": list("abc"),
        "captions": [["a cat", "a dog"], ["a"], ["b"]], "split": ["train", "val", "test"],
    }  # fmt: skip
    datasets.Dataset.from_dict(columns).to_parquet(folder / "rows.parquet")


def read_parquet(folder: Path) -> None:
    from ascl_plugin.data.readers import read_table

    for split in read_table(folder / "rows.parquet").values():
        list(split)


@cache
def pictures() -> list[bytes]:
    """Small pictures of all formats and modes, animated where the format has that."""
    from PIL import Image

    from ascl_plugin.data.images import FORMATS

    made = []
    for name, mode in product(FORMATS, ("L", "RGB", "CMYK", "P", "I;16", "RGBA")):
        many = name in ("GIF", "PNG", "WEBP", "TIFF") and mode == "RGB"
        frames = {"save_all": True, "append_images": [Image.new(mode, (9, 7))]} if many else {}
        file = io.BytesIO()
        try:
            Image.effect_noise((9, 7), 50).convert(mode).save(file, name, **frames)
        except (OSError, ValueError, KeyError):  # a format that has no such pictures
            continue
        made.append(file.getvalue())
    return made


def picture(folder: Path) -> None:
    write(folder / "a.jpg", pictures()[0])


def picture_bytes(raw: bytes, draw: random.Random) -> bytes:
    heads = (b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a", b"II*\0", b"\xff\xd8\xff", b"IHDR", b"acTL")
    return mutate_bytes(draw.choice(pictures()), draw, heads)


def read_picture(folder: Path) -> None:
    from ascl_plugin.data.images import load_image

    path = folder / "a.jpg"
    load_image({"path": str(path), "bytes": None}, "7")
