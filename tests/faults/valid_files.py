"""A picture and a caption file for inputs made by hand."""

from __future__ import annotations

import json

from PIL import Image


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def karpathy(folder, names=("a.png",), captions=("a cat",), **more):
    folder.mkdir(parents=True, exist_ok=True)
    sentences = [{"raw": text} for text in captions]
    entries = [{"filename": n, "split": "train", "sentences": sentences} | more for n in names]
    (folder / "dataset_x.json").write_text(json.dumps({"images": entries}))
    return folder
