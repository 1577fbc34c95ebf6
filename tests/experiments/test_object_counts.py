"""Objects of images: of scenes, of COCO's instances, of region files; files that do not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ascl_plugin.data import scenes
from ascl_plugin.experiments.notional import coco_instances, detected_regions, scene_objects


def test_scenes_by_hand():
    rows = [
        {"facts": ["noun:boat", "noun:key", "count:boat:3", "count:key:1", "key:red"]},
        {"facts": ["noun:cup", "count:cup:2", "ground:snow"]},
    ]
    assert scene_objects([row["facts"] for row in rows]) == {
        "objects": [4, 2],
        "kinds of objects": [2, 1],
    }


def test_scenes_hold_what_their_facts_say():
    counts = scene_objects(scenes.make("train", 20, seed=0)["facts"])
    assert all(1 <= k <= n for n, k in zip(*counts.values(), strict=True))


@pytest.fixture
def instances(tmp_path):
    """Image 139: two people and a chair; 285: nothing; 632: a crowd."""
    path = tmp_path / "instances_val2017.json"
    images = [{"id": n, "file_name": f"{n:012}.jpg"} for n in (139, 285, 632)]
    marks = [(139, 1, 0), (139, 62, 0), (139, 1, 0), (632, 1, 1)]
    annotations = [{"image_id": i, "category_id": c, "iscrowd": crowd} for i, c, crowd in marks]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_coco_instances(instances):
    """Rows find their image by any spelling of its name; an image that is not there is None."""
    ids = ["632", "139", "000000000285", "7", "COCO_val2014_000000000139.jpg"]
    assert coco_instances(instances, ids) == {
        "instances": [1, 3, 0, None, 3],
        "categories": [1, 2, 0, None, 2],
    }


@pytest.mark.parametrize("content", ["[1, 2]", "{}", "no json", '{"images": [{"id": 1}]}'])
def test_other_files_are_named(instances, content):
    instances.write_text(content)
    with pytest.raises(ValueError, match=r"instances_val2017.json is not COCO's instances JSON"):
        coco_instances(instances, ["139"])


def test_files_of_other_images_are_named(instances):
    with pytest.raises(ValueError, match=r"instances_val2017.json knows none of the 2 images"):
        coco_instances(instances, ["1", "2"])


def write_regions(folder, counts):
    for name, count in counts.items():
        np.savez(folder / f"{name}.npz", x=np.ones((count, 4), np.float32))


def test_detected_regions(tmp_path):
    write_regions(tmp_path, {"139": 3, "285": 5})
    assert detected_regions(tmp_path, ["285", "7", "139.jpg"]) == {"regions": [5, None, 3]}


def test_a_fixed_number_of_regions_is_no_count_of_objects(tmp_path):
    write_regions(tmp_path, {"139": 36, "285": 36})
    with pytest.raises(ValueError, match="holds 36 regions of every image: that is how many were"):
        detected_regions(tmp_path, ["285", "139"])
