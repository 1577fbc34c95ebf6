"""Every layout gives one row schema; every fault one error that names the file and the entry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("datasets")
import datasets
from PIL import Image

from ascl_plugin.data.readers import (
    ROW,
    caption_to_image,
    read,
    read_coco_captions,
    read_karpathy,
    require_splits,
)
from ascl_plugin.data.rows import to_dataset

DELETED = object()


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def entry(name, split="train", captions=("a dog",), **fields):
    return {
        "filename": name,
        "split": split,
        "sentences": [{"raw": c} for c in captions],
        **fields,
    }


def karpathy(root: Path, *entries, name="dataset_coco.json") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps({"images": list(entries)}))
    return root / name


# ---------------------------------------------------------------- Karpathy


def test_karpathy_rows(tmp_path):
    """Three splits, restval in train, uneven captions, ids from the file or made from the name."""
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "images" / name)
    first = entry("a.png", "train", ["  one ", "two\n"], cocoid=7)
    first["sentences"][0]["sentid"] = 70
    first["sentences"][1]["sentid"] = 71
    karpathy(tmp_path, first, entry("b.png", "restval"), entry("c.png", "test", ["x"] * 3))
    splits = read(tmp_path)
    assert list(splits) == ["train", "test"]
    assert splits["train"].features == ROW == splits["test"].features
    assert splits["train"][0] == {
        "image_id": "7",
        "image": {"bytes": None, "path": str(tmp_path / "images" / "a.png")},
        "captions": ["one", "two"],
        "caption_ids": ["70", "71"],
        "split": "train",
    }
    assert splits["train"]["image_id"][:] == ["7", "b.png"]
    assert splits["test"][0]["caption_ids"] == ["c.png#0", "c.png#1", "c.png#2"]


@pytest.mark.parametrize(
    "folder", ["val2014", "images", "images/val2014", "flickr30k-images", "Flicker8k_Dataset", ""]
)
def test_karpathy_finds_images(tmp_path, folder):
    where = picture(tmp_path / "pictures" / folder / "a.png")
    path = karpathy(tmp_path, entry("a.png", filepath="val2014"))
    row = read_karpathy(path, tmp_path / "pictures")["train"][0]
    assert row["image"]["path"] == str(where)


def test_karpathy_train_and_restval_lie_in_two_folders(tmp_path):
    picture(tmp_path / "train2014" / "a.png")
    picture(tmp_path / "val2014" / "b.png")
    karpathy(
        tmp_path,
        entry("a.png", filepath="train2014"),
        entry("b.png", "restval", filepath="val2014"),
    )
    paths = [cell["path"] for cell in read(tmp_path)["train"]["image"]]
    assert paths == [str(tmp_path / "train2014/a.png"), str(tmp_path / "val2014/b.png")]


def test_karpathy_over_coco_2017_folders(tmp_path):
    """Two images of one 2014 folder: 2017 has one in train, one in val."""
    one = picture(tmp_path / "train2017" / "000000000007.jpg")
    two = picture(tmp_path / "images" / "val2017" / "000000000009.jpg")
    names = [f"COCO_val2014_{n:012d}.jpg" for n in (7, 9)]
    karpathy(
        tmp_path,
        entry(names[0], "test", filepath="val2014", cocoid=7),
        entry(names[1], "test", filepath="val2014", cocoid=9),
    )
    assert [c["path"] for c in read(tmp_path)["test"]["image"]] == [str(one), str(two)]


@pytest.mark.parametrize(
    ("broken", "error", "words"),
    [
        ({"sentences": []}, ValueError, ["dataset_coco.json: image b.png", "no captions"]),
        ({"sentences": [{"raw": "x"}, {"raw": " "}]}, ValueError, ["b.png: caption 1 is empty"]),
        ({"sentences": [{"raw": None}]}, ValueError, ["image b.png", "caption 0", "None"]),
        ({"sentences": [{"tokens": []}]}, KeyError, ["images[1].sentences[0]", "'raw'"]),
        ({"sentences": DELETED}, KeyError, ["images[1]: field 'sentences' is missing"]),
        ({"filename": DELETED}, KeyError, ["images[1]: field 'filename' is missing"]),
        ({"split": DELETED}, KeyError, ["images[1]: field 'split' is missing"]),
        ({"split": "nonsense"}, ValueError, ["images[1]", "nonsense", "restval"]),
        ({"split": None}, ValueError, ["images[1]", "unknown split None"]),
        ({"filename": "../b.png"}, ValueError, ["images[1]", "'../b.png'", "leaves"]),
        ({"filename": "/etc/passwd"}, ValueError, ["images[1]", "leaves"]),
        ({"filename": "C:\\b.png"}, ValueError, ["images[1]", "leaves"]),
        ({"filepath": "x/../.."}, ValueError, ["images[1]", "leaves"]),
        ({"filename": "a.png"}, ValueError, ["'a.png' occurs twice", "entry 0 and entry 1"]),
    ],
)  # fmt: skip
def test_karpathy_faults(tmp_path, broken, error, words):
    for name in ("a.png", "b.png"):
        picture(tmp_path / "images" / name)
    second = {k: v for k, v in {**entry("b.png"), **broken}.items() if v is not DELETED}
    karpathy(tmp_path, entry("a.png"), second)
    with pytest.raises(error) as caught:
        read(tmp_path)
    for word in ["dataset_coco.json", *words]:
        assert word in str(caught.value)


def test_missing_images_are_found_out_at_once_and_say_what_was_tried(tmp_path):
    """The train image is there, the test image is not."""
    picture(tmp_path / "images" / "a.png")
    karpathy(tmp_path, entry("a.png"), entry("b.png", "test", filepath="val2014"))
    with pytest.raises(FileNotFoundError) as caught:
        read(tmp_path)
    for word in ("images[1]", "'b.png'", str(tmp_path / "val2014"), str(tmp_path / "images")):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"pictures": []}', "field 'images' is missing; it has pictures"),
        ('{"images":\n [{"a": }]}', "dataset.json: not JSON, line 2"),
        ("[]", "expected an object with 'images', got list"),
        ('{"images": {}}', "'images' is a dict"),
        ('{"images": [3]}', r"images\[0\]: expected an object"),
    ],
)
def test_not_the_json_expected(tmp_path, text, words):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises((ValueError, KeyError), match=words):
        read(tmp_path)


def test_several_annotation_files_want_a_choice(tmp_path):
    picture(tmp_path / "images" / "a.png")
    karpathy(tmp_path, entry("a.png"), name="dataset_a.json")
    karpathy(tmp_path, entry("a.png", "test"), name="dataset_b.json")
    with pytest.raises(ValueError, match=r"dataset_a.json, dataset_b.json; annotations="):
        read(tmp_path)
    assert list(read(tmp_path, annotations="dataset_b.json")) == ["test"]
    assert list(read(tmp_path, annotations=tmp_path / "dataset_a.json")) == ["train"]
    with pytest.raises(FileNotFoundError, match=r"dataset_c.json"):
        read(tmp_path, annotations="dataset_c.json")


# ---------------------------------------------------------------- COCO


def coco(root: Path, name: str, images=(1, 2), captions=((1, "x"), (2, "y"), (1, "z"))) -> Path:
    path = root / "annotations" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in images],
        "annotations": [
            {"id": 100 + n, "image_id": i, "caption": c} for n, (i, c) in enumerate(captions)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_coco_captions_of_two_splits(tmp_path):
    """Captions of an image stand apart in the file; they come together in its order."""
    for name in ("train2017/1.png", "train2017/2.png", "images/val2017/1.png"):
        picture(tmp_path / name)
    coco(tmp_path, "captions_train2017.json")
    coco(tmp_path, "captions_val2017.json", [1], [(1, "v")])
    splits = read(tmp_path)
    assert list(splits) == ["train", "val"]
    assert splits["train"][0] == {
        "image_id": "1",
        "image": {"bytes": None, "path": str(tmp_path / "train2017" / "1.png")},
        "captions": ["x", "z"],
        "caption_ids": ["100", "102"],
        "split": "train",
    }
    assert splits["val"][0]["image"]["path"] == str(tmp_path / "images" / "val2017" / "1.png")
    assert splits["val"].features == ROW


@pytest.mark.parametrize(
    ("name", "images", "captions", "error", "message"),
    [
        ("val2014", [1, 2], [(1, "x")], ValueError, "image 2: .*no captions"),
        ("val2014", [1], [(1, "x"), (1, "\t")], ValueError, "image 1: caption 1 is empty"),
        ("val2014", [1, 1], [(1, "x")], ValueError, "'1' occurs twice, in entry 0 and entry 1"),
        ("val2014", [1], [(5, "x")], KeyError, r"annotations\[0\]: image_id 5"),
        ("val2014", [3], [(3, "x")], FileNotFoundError, "image '3.png' not found in .*val2014"),
        ("mine", [1], [(1, "x")], ValueError, "tells neither train, val nor test"),
    ],
)
def test_coco_faults(tmp_path, name, images, captions, error, message):
    picture(tmp_path / "1.png")
    path = coco(tmp_path, f"captions_{name}.json", images, captions)
    with pytest.raises(error, match=rf"captions_{name}.json.*{message}"):
        read_coco_captions(path)


def test_two_years_of_one_split_want_a_choice(tmp_path):
    for year in (2014, 2017):
        picture(tmp_path / f"val{year}" / "1.png")
        coco(tmp_path, f"captions_val{year}.json", [1], [(1, str(year))])
    with pytest.raises(ValueError, match=r"captions_val2014.json and captions_val2017.json"):
        read(tmp_path)
    chosen = read(tmp_path, annotations="annotations/captions_val2014.json")
    assert chosen["val"]["captions"][:] == [["2014"]]


# ---------------------------------------------------------------- what may be asked of rows


def rows_of(counts) -> datasets.Dataset:
    return to_dataset(
        [
            {
                "image_id": str(i),
                "image": None,
                "captions": [f"{i}.{k}" for k in range(count)],
                "caption_ids": [f"{i}#{k}" for k in range(count)],
                "split": "val",
            }
            for i, count in enumerate(counts)
        ]
    )


def test_caption_to_image_of_a_selection():
    """Rows 2 and 0 of counts 1 2 3, in that order: 3 captions of row 0, 1 of row 1."""
    texts, index = caption_to_image(rows_of([1, 2, 3]).select([2, 0]))
    assert texts == ["2.0", "2.1", "2.2", "0.0"]
    assert index.tolist() == [0, 0, 0, 1]


def test_require_splits():
    both = datasets.DatasetDict({"train": rows_of([1]), "val": rows_of([1])})
    assert require_splits(both, ["train", "val"], "/data") is both
    with pytest.raises(ValueError, match="/data: no test split; it has train, val"):
        require_splits(both, ["train", "test"], "/data")
    with pytest.raises(ValueError, match="no train or test split; it has none"):
        require_splits(datasets.DatasetDict(), ["train", "test"], "/data")
