"""Where regions are drawn, and on which picture."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("datasets", reason="extra `recipes`")
from ascl_plugin.demo.regions import encoder_view, regions_of
from ascl_plugin.retrieval.encoders import GridEncoder

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8))
ROW = {"image": PICTURE, "image_id": "a"}


def evaluator(inputs=None, **members):
    return SimpleNamespace(
        images=inputs, model=SimpleNamespace(image_encoder=SimpleNamespace(**members))
    )


class Crop:
    """An encoder that sees the left half, in colours of its own."""

    def preprocess(self, picture):
        pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32)).permute(2, 0, 1) / 255
        scale = torch.tensor([0.2, 0.3, 0.4])[:, None, None]
        return (pixels[:, :, : pixels.shape[2] // 2] - 0.5) / scale


def test_the_encoders_view_is_cropped_and_in_its_own_colours():
    seen = encoder_view(Crop(), PICTURE)
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(PICTURE)[:, :48])


def test_the_view_of_an_encoder_of_ours():
    seen = encoder_view(GridEncoder(width=8, grid=2), PICTURE)
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(PICTURE.resize((32, 32))))


def test_as_many_as_a_grid_has_are_cells_of_the_view():
    found = regions_of(evaluator(), ROW, 4)
    assert not found.on_picture and "2 × 2" in found.note
    assert (2 * found.boxes).tolist() == [[0, 0, 1, 1], [1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]
    assert regions_of(evaluator(), ROW, 8).boxes is None


def test_boxes_of_a_detector():
    boxes = torch.tensor([[0.0, 0, 96, 48], [24, 12, 48, 24]])

    def detect(pictures):
        assert pictures[0].size == (96, 48)
        return [SimpleNamespace(boxes=boxes)]

    found = regions_of(evaluator(detect=detect), ROW, 2)
    assert found.on_picture
    assert found.boxes.tolist() == [[0, 0, 1, 1], [0.25, 0.25, 0.25, 0.25]]


@pytest.mark.parametrize(
    ("boxes", "told"),
    [
        (np.array([[0, 0, 96, 48.5]], dtype=np.float32), "Boxes of the region files"),
        (np.array([[0, 0, 640, 480]], dtype=np.float32), "do not fit a picture of 96 × 48"),
        (None, "have no boxes"),
    ],
)
def test_boxes_of_region_files(boxes, told):
    inputs = SimpleNamespace(boxes=lambda row: boxes)
    found = regions_of(evaluator(inputs, from_files=True), ROW, 1)
    assert told in found.note and found.on_picture
    assert (found.boxes is not None) == told.startswith("Boxes")


def test_region_inputs_give_the_boxes_of_their_files(tmp_path):
    inputs = pytest.importorskip("ascl_plugin.adapters.regions.inputs")
    boxes = np.array([[0, 0, 4, 4], [1, 1, 2, 2], [2, 2, 3, 3]], dtype=np.float32)
    np.savez(tmp_path / "a.npz", x=np.ones((3, 5), dtype=np.float32), bbox=boxes)
    found = inputs.RegionInputs(tmp_path, num_regions=2).boxes({"image_id": "a", "image": None})
    assert found.tolist() == boxes[:2].tolist()
