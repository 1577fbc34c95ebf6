"""Features kept in memory: the same batches as from the store, entry by entry; mirror images."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import nn

pytest.importorskip("safetensors", reason="extra `recipes`")
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs
from ascl_plugin.retrieval.views import MirroredRows


class Pictures(nn.Module):
    """Frozen; a region for every white column of a picture, its place as the feature."""

    region_dim, pooled_dim, frozen = 3, 2, True

    def preprocess(self, picture):
        return torch.tensor(list(picture.convert("L").getdata())).view(1, 2, 4)[:, 0]

    def forward(self, pixel_values):
        white = pixel_values[:, 0] > 100
        places = torch.arange(1.0, 5)[:, None] * torch.tensor([1.0, 10, 100])
        regions = places.expand(len(white), 4, 3)
        return ImageFeatures(regions, white, pixel_values[:, 0, :2].float())

    def fingerprint(self):
        return {"encoder": "pictures"}


class Letters(nn.Module):
    """Frozen; a word for every letter."""

    word_dim, frozen = 2, True

    def tokenize(self, texts):
        longest = max(map(len, texts))
        codes = [[ord(c) for c in text.ljust(longest)] for text in texts]
        ids = torch.tensor(codes).view(len(texts), longest)
        return {"input_ids": ids, "attention_mask": ids != ord(" ")}

    def forward(self, input_ids, attention_mask):
        words = torch.stack([input_ids, -input_ids], -1).float() / 7
        return TextFeatures(words, attention_mask)

    def fingerprint(self):
        return {"encoder": "letters"}


@pytest.fixture
def rows(tmp_path):
    """Three pictures with white columns (from 1): 1; 1, 2; 4."""
    found = []
    for number, white in enumerate([[0], [0, 1], [3]]):
        picture = Image.new("L", (4, 2))
        for x in white:
            picture.paste(255, (x, 0, x + 1, 2))
        path = tmp_path / f"{number}.png"
        picture.save(path)
        found.append({"image_id": str(number), "image": {"path": str(path), "bytes": None}})
    return found


def same(ours, expected):
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value) and ours[name].dtype == value.dtype, name


def test_batches_are_those_of_the_store(rows, tmp_path):
    images, texts = ImageInputs(Pictures(), tmp_path), TextInputs(Letters(), tmp_path)
    images.prepare(rows, 2, progress=False)
    texts.prepare(["ab", "", "abcd", "b"], 2, progress=False)
    chosen = [[rows[2], rows[1], rows[2]], [rows[0], rows[2]], [rows[1]]]
    strings = [["abcd", "b", "b"], ["", "ab"], [""], ["b"]]
    slow = [images(batch) for batch in chosen], [texts(batch) for batch in strings]
    images.pack()
    texts.pack()
    images.store = texts.store = "not looked at"
    for inputs, batches, expected in ((images, chosen, slow[0]), (texts, strings, slow[1])):
        for batch, known in zip(batches, expected, strict=True):
            same(inputs(batch), known)
    assert "region_mask" in slow[0][0] and "region_mask" not in slow[0][1]


def test_what_goes_beyond_the_memory_comes_from_the_store(rows, tmp_path):
    """Two of three texts fit: 8 bytes a word; a batch with the third is read from the disk."""
    texts = TextInputs(Letters(), tmp_path, feature_memory=3 * 8)
    texts.prepare(["ab", "b", "abc"], 2, progress=False)
    texts.pack()
    assert list(texts._packed.place) == ["ab", "b"]
    same(texts(["b", "abc"]), TextInputs(Letters(), tmp_path)(["b", "abc"]))


def test_mirror_images_are_entries_of_their_own(rows, tmp_path):
    """Columns 1 and 2 of picture 1 are 4 and 3 in the mirror; without a cache, too."""
    images = ImageInputs(Pictures(), tmp_path)
    images.prepare(rows, 2, progress=False)
    plain = images(rows)
    mirrored = MirroredRows(rows)
    images.prepare(mirrored, 2, progress=False)
    same(images(rows), plain)  # a cache of before stays valid
    for _ in ("from the store", "from memory"):
        both = images([rows[1], mirrored[1]])
        assert both["regions"][:, :, 0].tolist() == [[1, 2], [3, 4]]
        images.pack()
    pixels = ImageInputs(Pictures())([rows[1], mirrored[1]])["pixel_values"][:, 0]
    assert pixels.tolist() == [[255, 255, 0, 0], [0, 0, 255, 255]]
