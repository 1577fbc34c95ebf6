"""FeatureFolder and extract: what an encoder says is what `open_regions` reads back."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

pytest.importorskip("datasets", reason="extra `recipes`")
from PIL import Image

from ascl_plugin.adapters.detectors.detector import Detections
from ascl_plugin.adapters.regions.extraction import FeatureFolder, extract
from ascl_plugin.adapters.regions.region_files import open_regions
from ascl_plugin.features import ImageFeatures


class Columns(torch.nn.Module):
    """As many regions as the picture is wide, at most four: a column's mean colours."""

    frozen, scale = True, 1.0

    def __init__(self):
        super().__init__()
        self.seen = []

    def fingerprint(self):
        return {"encoder": "columns", "scale": self.scale}

    def preprocess(self, picture):
        self.seen.append(picture.width)
        pixels = torch.from_numpy(np.array(picture, dtype=np.float32))
        padded = torch.zeros(4, 4)
        padded[: picture.width, :3] = pixels.mean(0)[:4]
        padded[: picture.width, 3] = 1
        return padded

    def forward(self, pixel_values):
        regions = pixel_values[..., :3] * self.scale
        return ImageFeatures(regions, pixel_values[..., 3].bool(), regions.sum(1))


class Boxed(Columns):
    def detect(self, pictures):
        found = []
        for picture in pictures:
            features = self.preprocess(picture)[: picture.width, :3]
            boxes = torch.arange(4.0).expand(len(features), 4)
            scores = torch.zeros(len(features))
            found.append(Detections(boxes, scores, scores.long(), features, features.sum(0)))
        return found


@pytest.fixture
def rows(tmp_path):
    """Five pictures of a known colour, 1 to 4 pixels wide."""
    made = []
    for number, width in enumerate((1, 4, 2, 3, 4)):
        path = tmp_path / f"p{number}.png"
        Image.new("RGB", (width, 2), (number, 10, 20)).save(path)
        made.append({"image_id": f"p{number}", "image": {"path": str(path), "bytes": None}})
    return made


@pytest.mark.parametrize("encoder", [Columns, Boxed])
@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_written_is_read(rows, tmp_path, encoder, workers):
    both = [
        FeatureFolder(tmp_path / "out" / "regions", encoder()),
        FeatureFolder(tmp_path / "out" / "pooled", encoder(), pooled=True, dtype="float16"),
    ]
    assert extract(rows, both, batch_size=2, num_workers=workers, progress=False) == []
    regions, pooled = (open_regions(folder.folder) for folder in both)
    assert len(regions) == len(pooled) == 5
    assert (regions.dtype, pooled.dtype) == (np.float32, np.float16)
    for number, width in enumerate((1, 4, 2, 3, 4)):
        found = regions.regions(f"p{number}")
        assert found.features.tolist() == [[number, 10, 20]] * width
        assert pooled.regions(f"p{number}").features.tolist() == [
            [number * width, 10 * width, 20 * width]
        ]
        if encoder is Boxed:
            assert found.boxes.tolist() == [[0, 1, 2, 3]] * width
        else:
            assert found.boxes is None


def test_what_is_there_is_not_made_again(rows, tmp_path):
    extract(rows[:3], [FeatureFolder(tmp_path / "out", Columns())], progress=False)
    (tmp_path / "out" / ".p3.npy.writing").write_bytes(b"half a file")  # of a kill
    encoder = Columns()
    folder = FeatureFolder(tmp_path / "out", encoder)
    assert [f"p{n}" in folder for n in range(5)] == [True] * 3 + [False] * 2
    extract(rows, [folder], progress=False)
    assert encoder.seen == [3, 4]
    assert len(open_regions(tmp_path / "out")) == 5
    assert ".p3.npy.writing" not in os.listdir(tmp_path / "out")


def test_a_folder_is_one_encoders(rows, tmp_path):
    FeatureFolder(tmp_path / "a", Columns())
    other = Columns()
    other.scale = 2.0
    with pytest.raises(FileExistsError, match="a holds features of another encoder"):
        FeatureFolder(tmp_path / "a", other)
    with pytest.raises(FileExistsError, match="a holds features of another encoder"):
        FeatureFolder(tmp_path / "a", Columns(), dtype="float16")
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "1.npy", np.zeros(3))
    with pytest.raises(FileExistsError, match=r"b holds features without extraction.json"):
        FeatureFolder(tmp_path / "b", Columns())
    other.frozen = False
    with pytest.raises(ValueError, match="Columns is not frozen"):
        FeatureFolder(tmp_path / "c", other)
    with pytest.raises(ValueError, match="dtype must be one of float32, float16, got 'int8'"):
        FeatureFolder(tmp_path / "c", Columns(), dtype="int8")


def test_features_that_are_not_finite_and_odd_names_are_refused(rows, tmp_path):
    large = Columns()
    large.scale = 1e4
    folder = FeatureFolder(tmp_path / "out", large, dtype="float16")
    with pytest.raises(ValueError, match="features of image 'p0' are not finite in float16"):
        extract(rows, [folder], progress=False)
    with pytest.raises(ValueError, match=r"image id '\.\./p' cannot be the name of a file"):
        extract([{**rows[0], "image_id": "../p"}], [folder], progress=False)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_picture_is_named_or_listed(rows, tmp_path, workers):
    (tmp_path / "p1.png").write_bytes(b"\x89PNG nothing")
    rows[3]["image"] = {"path": str(tmp_path / "gone.png"), "bytes": None}
    folder = FeatureFolder(tmp_path / "out", Columns())
    with pytest.raises(ValueError, match=r"image p1 \(.*p1.png\) does not decode"):
        extract(rows, [folder], 2, workers, progress=False)
    bad = extract(rows, [folder], 2, workers, skip_bad=True, progress=False)
    assert [line.split(" (")[0] for line in bad] == ["image p1", "image p3"]
    assert bad[1].endswith("gone.png): no such file")
    assert sorted(open_regions(tmp_path / "out").ids) == ["p0", "p2", "p4"]
