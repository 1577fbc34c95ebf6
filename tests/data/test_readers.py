"""Every layout gives one row schema; every fault one error that names the file and the entry."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("datasets")
import datasets
from PIL import Image

from ascl_plugin.data import tables
from ascl_plugin.data.readers import (
    ROW,
    caption_to_image,
    read,
    read_coco_captions,
    read_karpathy,
    read_table,
    require_splits,
)
from ascl_plugin.data.rows import to_dataset

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Tables read in a test are not left in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


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
        ({"split": "nonsense"}, ValueError, ["images[1]", "nonsense", "restval"]),
        ({"split": None}, ValueError, ["images[1]", "unknown split None"]),
        ({"filename": "../b.png"}, ValueError, ["images[1]", "'../b.png'", "leaves"]),
        ({"filename": "/etc/passwd"}, ValueError, ["images[1]", "leaves"]),
        ({"filename": "C:\\b.png"}, ValueError, ["images[1]", "leaves"]),
        ({"filepath": "x/../.."}, ValueError, ["images[1]", "leaves"]),
        ({"filename": "a.png"}, ValueError, ["'a.png' occurs twice", "entries 0 and 1"]),
    ],
)  # fmt: skip
def test_karpathy_faults(tmp_path, broken, error, words):
    for name in ("a.png", "b.png"):
        picture(tmp_path / "images" / name)
    karpathy(tmp_path, entry("a.png"), {**entry("b.png"), **broken})
    with pytest.raises(error) as caught:
        read(tmp_path)
    for word in ["dataset_coco.json", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("field", ["filename", "split", "sentences"])
def test_karpathy_missing_field(tmp_path, field):
    picture(tmp_path / "images" / "a.png")
    broken = entry("a.png")
    del broken[field]
    karpathy(tmp_path, broken)
    with pytest.raises(KeyError, match=rf"dataset_coco.json: images\[0\]: field '{field}'"):
        read(tmp_path)


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
        ('{"images":\n [{"a": }]}', "dataset.json: not JSON, line 2"),
        ("[]", "expected an object with 'images', got list"),
        ('{"images": {}}', "'images' is a dict"),
        ('{"images": [3]}', r"images\[0\]: expected an object"),
    ],
)
def test_not_the_json_expected(tmp_path, text, words):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        read(tmp_path)


def test_json_without_images(tmp_path):
    (tmp_path / "dataset.json").write_text('{"pictures": []}')
    with pytest.raises(KeyError, match="field 'images' is missing; it has pictures"):
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
        ("val2014", [1, 1], [(1, "x")], ValueError, "'1' occurs twice, in entries 0 and 1"),
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


# ---------------------------------------------------------------- tables


def png(colour) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(data, "PNG")
    return data.getvalue()


def table(path: Path, columns: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns).to_parquet(path)
    return path


def test_imagefolder_with_metadata(tmp_path):
    for split in ("train", "test"):
        for n in range(2):
            picture(tmp_path / "d" / split / f"{n}.png")
        lines = [{"file_name": f"{n}.png", "captions": ["a", "b", "c"][: n + 1]} for n in range(2)]
        text = "\n".join(map(json.dumps, lines))
        (tmp_path / "d" / split / "metadata.jsonl").write_text(text)
    splits = read(tmp_path / "d")
    assert list(splits) == ["train", "test"]
    assert splits["test"].features == ROW
    assert splits["test"][1] == {
        "image_id": "test/1.png",
        "image": {"bytes": None, "path": str(tmp_path / "d" / "test" / "1.png")},
        "captions": ["a", "b"],
        "caption_ids": ["test/1.png#0", "test/1.png#1"],
        "split": "test",
    }


def test_flat_rows_are_grouped_by_image_id_with_embedded_bytes(tmp_path):
    """Rows a b a c: each image once, in the order of its first row and with that row's bytes."""
    cells = [{"bytes": png(c), "path": None} for c in ("red", "blue", "green", "black")]
    table(
        tmp_path / "d" / "validation.parquet",
        {"jpg": cells, "caption": list("xyzw"), "img_id": list("abac"), "sentid": [5, 6, 7, 8]},
    )
    rows = read(tmp_path / "d")["val"]
    assert rows["image_id"][:] == ["a", "b", "c"]
    assert rows["captions"][:] == [["x", "z"], ["y"], ["w"]]
    assert rows["caption_ids"][:] == [["5", "7"], ["6"], ["8"]]
    assert [c["bytes"] for c in rows["image"]] == [png("red"), png("blue"), png("black")]


def test_embedded_images_without_id_are_never_grouped(tmp_path):
    """Both were called image.jpg once; that makes them no one image."""
    cells = [{"bytes": png(c), "path": "image.jpg"} for c in ("red", "blue")]
    path = table(tmp_path / "x.parquet", {"image": cells, "text": ["x", "y"]})
    rows = read(path)["train"]
    assert rows["captions"][:] == [["x"], ["y"]]
    assert rows["image_id"][:] == ["train-0", "train-1"]


def test_a_split_column_decides(tmp_path):
    """As hub copies of Flickr30K have it: one file, the split in a column, restval too."""
    path = table(
        tmp_path / "d" / "test.parquet",
        {
            "image": [{"bytes": png("red"), "path": None}] * 4,
            "caption": [["a"], ["b", "c"], ["d"], ["e"]],
            "sentids": [["0"], ["1", "2"], ["3"], ["4"]],
            "split": ["test", "train", "restval", "train"],
            "filename": ["1", "2", "3", "4"],
        },
    )
    splits = read_table(path.parent)
    assert splits["train"]["image_id"][:] == ["2", "4", "3"]
    assert set(splits["train"]["split"][:]) == {"train"}
    assert splits["test"]["image_id"][:] == ["1"]
    assert splits["train"]["caption_ids"][:] == [["1", "2"], ["4"], ["3"]]


def test_paths_in_a_table_start_at_its_folder(tmp_path):
    where = picture(tmp_path / "pictures" / "a.png")
    path = table(tmp_path / "x.parquet", {"image": ["pictures/a.png"], "captions": [["x"]]})
    assert read(path)["train"][0]["image"] == {"path": str(where), "bytes": None}
    path = table(tmp_path / "y.parquet", {"image": ["../a.png"], "captions": [["x"]]})
    with pytest.raises(ValueError, match=r"y.parquet, split train: row 0: path '../a.png' leaves"):
        read(path)


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        ({"photo": ["a"], "caption": ["x"]}, KeyError, "no column for images; it has photo"),
        ({"image": ["a"], "words": ["x"]}, KeyError, "no column for captions; it has image, words"),
        ({"image": ["a"], "caption": [" "]}, ValueError, "image .*: caption 0 is empty"),
        ({"image": ["a", "b"], "captions": [["x"], []]}, ValueError, "has no captions"),
        ({"image": ["a", "b"], "captions": [["x"]] * 2, "id": [1, 1]}, ValueError, "'1' occurs"),
        ({"image": ["a"], "caption": ["x"], "split": ["foo"]}, ValueError, "unknown split 'foo'"),
    ],
)  # fmt: skip
def test_table_faults(tmp_path, columns, error, words):
    with pytest.raises(error, match=words):
        read(table(tmp_path / "x.parquet", columns))


def test_nothing_to_read(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: neither a folder or Parquet file"):
        read(tmp_path / "empty")

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub")

    monkeypatch.setattr(tables.datasets, "load_dataset", unreachable)
    with pytest.raises(FileNotFoundError, match=r"nobody/nothing: neither .*Couldn't reach"):
        read("nobody/nothing")


def test_damaged_parquet(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(ValueError, match=r"x.parquet cannot be read: .*Parquet magic bytes"):
        read(tmp_path / "x.parquet")


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


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_caption_to_image_follows_the_data(counts):
    """Caption "i.k" is the k-th of image i, so its index is what stands before the point."""
    texts, index = caption_to_image(rows_of(counts))
    assert index.dtype == np.int64
    assert len(texts) == len(index) == sum(counts)
    assert [int(text.split(".")[0]) for text in texts] == index.tolist()
    assert texts == sorted(texts)


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


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_real_data():
    splits = read(SHARED / "coco_subset")
    assert {k: len(v) for k, v in splits.items()} == {"train": 100, "val": 31, "test": 31}
    again = read_coco_captions(
        SHARED / "coco_subset" / "annotations" / "captions_subset2017.json", split="test"
    )
    captions = dict(zip(again["image_id"], again["captions"], strict=True))
    for row in splits["test"]:
        assert captions[row["image_id"]] == row["captions"]
