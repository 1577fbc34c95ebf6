"""The experiment of section 1: on scenes, on COCO's instances, on rows that nothing is known of."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("datasets", reason="extra `recipes`")
pytest.importorskip("textblob", reason="extra `words`")
from datasets import Dataset

from ascl_plugin.data import scenes
from ascl_plugin.experiments.notional import experiment


def study_of(rows):
    return SimpleNamespace(
        rows=lambda: rows, cell=lambda _, key, make: json.loads(json.dumps(make()))
    )


def test_shares_by_hand(tmp_path):
    """Image 1 has 3 instances of 2 kinds, its captions 2 and 5 notional words, 2 and 2 nouns.

    Image 2 has none, image 3 is not in the file.
    """
    captions = [
        ["A man is on a chair", "Two old men slowly sit on chairs"],
        ["the sky"],
        ["nobody counts this"],
    ]
    rows = Dataset.from_dict({"image_id": ["139", "285", "7"], "captions": captions})
    path = tmp_path / "instances.json"
    annotations = [{"image_id": 139, "category_id": c} for c in (1, 1, 62)]
    images = [{"id": n, "file_name": f"{n:012}.jpg"} for n in (139, 285)]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    result = experiment(study_of(rows), {"instances": str(path)})
    table = {(row["objects"], row["words"]): row for row in result.tables[0].rows}
    assert table["instances", "notional words"] == {
        "objects": "instances", "words": "notional words", "images": "2 of 3", "pairs": 3,
        "objects an image": 2.0, "words a caption": 3.0, "more objects, percent": 33.3,
        "as many, percent": 0.0,
    }  # fmt: skip
    assert table["instances", "nouns"]["more objects, percent"] == 66.7
    assert table["categories", "nouns"]["as many, percent"] == 66.7
    assert any("80 categories" in note for note in result.notes)
    assert not any("drawn scenes" in note for note in result.notes)


def test_scenes_need_no_file():
    result = experiment(study_of(scenes.make("test", 12, seed=0)), {})
    assert [(row["objects"], row["words"]) for row in result.tables[0].rows] == [
        ("objects", "notional words"), ("objects", "nouns"),
        ("kinds of objects", "notional words"), ("kinds of objects", "nouns"),
    ]  # fmt: skip
    assert all(row["pairs"] == 60 for row in result.tables[0].rows)
    assert "By exact facts" in result.notes[-1]


def test_photographs_of_which_nothing_is_known():
    rows = Dataset.from_dict({"image_id": ["1"], "captions": [["a dog"]]})
    with pytest.raises(ValueError, match="settings give a file, instances: COCO's"):
        experiment(study_of(rows), {})
