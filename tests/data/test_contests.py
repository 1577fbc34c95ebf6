"""Files of contests: what each layout gives, and the error that a wrong entry brings."""

from __future__ import annotations

import csv
import io
import json

import pytest

pytest.importorskip("datasets", reason="extra `recipes`")
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ascl_plugin.data.contests import LAYOUTS, read_contests
from ascl_plugin.data.images import load_image
from ascl_plugin.data.store import image_key


def entry(**changes):
    right = {
        "filename": "000000085329.jpg",
        "caption": "A dog on a bench. ",
        "negative_caption": "A dog and a cat on a bench.",
    }
    return {k: v for k, v in (right | changes).items() if v is not None}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    (tmp_path / "coco" / "val2017" / "000000085329.jpg").write_bytes(b"")
    write(tmp_path, "swap_att", {"0": entry()})
    write(tmp_path, "add_obj", {"0": entry(), "1": entry(filename="000000000002.jpg")})
    return tmp_path


def write(folder, kind, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "data" / f"{kind}.json").write_text(text)


def test_rows_by_kind(folder):
    found = read_contests(folder / "data", "sugarcrepe", folder / "coco")
    assert {kind: len(rows) for kind, rows in found.items()} == {"add_obj": 2, "swap_att": 1}
    assert found["add_obj"][1] == {
        "image_id": "000000000002.jpg",
        "image": {"path": str(folder / "coco" / "val2017" / "000000000002.jpg"), "bytes": None},
        "true": ["A dog on a bench."],
        "false": ["A dog and a cat on a bench."],
    }


def test_one_file_and_no_pictures(folder):
    found = read_contests(folder / "data" / "swap_att.json", "sugarcrepe", pictures=False)
    assert found["swap_att"][0]["image"] == {"path": "000000085329.jpg", "bytes": None}


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"7": entry(caption=None)}, KeyError, "entry '7': field 'caption' is missing"),
        ({"7": entry(negative_caption=" ")}, ValueError, "entry '7': caption 1 is empty"),
        ({"7": entry(caption=3)}, ValueError, "entry '7': caption 0 is 3"),
        ({"7": entry(filename="../../x.jpg")}, ValueError, "entry '7': path .* leaves"),
        ({"7": entry(filename="/x.jpg")}, ValueError, "entry '7': path .* leaves"),
        ({"7": entry(filename="none.jpg")}, FileNotFoundError, "entry '7': image 'none.jpg'"),
        ({"7": "x"}, ValueError, "entry '7': expected an object with 'caption', got str"),
        ([entry(caption=None)], KeyError, "entry '0': field 'caption' is missing"),
        ("3", ValueError, "expected entries, got int"),
        ({}, ValueError, "no entries"),
        ("{", ValueError, "not JSON"),
    ],
)
def test_a_wrong_entry_is_named(folder, content, error, message):
    write(folder, "swap_att", content)
    with pytest.raises(error, match=f"swap_att.json.*{message}"):
        read_contests(folder / "data", "sugarcrepe", folder / "coco")


def test_an_empty_folder_and_an_unknown_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \.json.* file that begins with 'visual_"):
        read_contests(tmp_path, "aro")
    with pytest.raises(KeyError, match="no layout 'crepe'; known are sugarcrepe,"):
        read_contests(tmp_path, "crepe")


BOX = {"bbox_x": 1, "bbox_y": 2, "bbox_w": 3, "bbox_h": 9}
FOILS = {f"hard_text_{k}": f"bench a on dog {k}" for k in (1, 2, 3, 4)}
CHOICES = {f"caption_{k}": f"text {k}" for k in range(4)}
# layout -> name of the file, an entry as published, its (true, false) texts
PUBLISHED = {
    "sugarcrepe": ("add_obj.json", entry(filename="a.png"), [(1, 1)]),
    "sugarcrepe_pp": ("swap_att.json", entry(filename="a.png", caption2="dog, bench"), [(2, 1)]),
    "aro": (
        "visual_genome_relation.json",
        {"image_path": "a.png", "true_caption": "b", "false_caption": "c", **BOX},
        [(1, 1)],
    ),
    "aro_order": ("test.parquet", {"images": None, "correct_caption": "a dog", **FOILS}, [(1, 4)]),
    "winoground": (
        "examples.jsonl",
        {"id": 0, "caption_0": "x", "caption_1": "y", "image_0": "a", "image_1": "a"},
        [(1, 1), (1, 1)],
    ),
    "negbench": (
        "COCO_val_mcq.csv",
        {"image_path": "/home/x/val2017/a.png", "correct_answer": 2, **CHOICES},
        [(1, 3)],
    ),
    "half_truths": (
        "coco.jsonl",
        {"id": 1, "image": "a.png", "anchor": "a", "half_truth": "a b", "full_truth": "a c"}
        | {"triplet_type": "relation"},
        [(1, 1)],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_as_published(layout, tmp_path):
    """Each from its own format of file; pictures in images/, or in the file."""
    name, one, counts = PUBLISHED[layout]
    (tmp_path / "images").mkdir()
    picture = Image.new("RGB", (6, 8))
    picture.putpixel((1, 2), (9, 9, 9))
    picture.save(tmp_path / "images" / "a.png")
    if name.endswith("parquet"):
        png = (tmp_path / "images" / "a.png").read_bytes()
        table = pa.Table.from_pylist([{**one, "images": {"bytes": png, "path": "x.jpg"}}])
        pq.write_table(table, tmp_path / name)
    elif name.endswith("csv"):
        with open(tmp_path / name, "w", newline="") as file:
            writer = csv.DictWriter(file, one)
            writer.writeheader()
            writer.writerow(one)
    else:
        text = json.dumps(one if name.endswith("jsonl") else [one])
        (tmp_path / name).write_text(f"{text}\n")
    ((kind, rows),) = read_contests(tmp_path, layout).items()
    assert kind == ("relation" if layout == "half_truths" else name.partition(".")[0])
    assert [(len(row["true"]), len(row["false"])) for row in rows] == counts
    shown = load_image(rows[0]["image"], rows[0]["image_id"])
    assert shown.size == ((3, 6) if layout == "aro" else (6, 8))  # the box ends below the picture
    if layout == "aro":
        assert shown.getpixel((0, 0)) == (9, 9, 9)
    if layout == "winoground":
        assert rows[1]["true"] == rows[0]["false"] == ["y"] and rows[1]["false"] == ["x"]
    if layout == "negbench":
        assert rows[0]["true"] == ["text 2"] and "text 2" not in rows[0]["false"]
    if layout == "half_truths":
        assert rows[0]["richer"] == "a c"


def test_answers_and_boxes_that_are_none(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    choices = {"image_path": "a.png", "correct_answer": 4, **CHOICES}
    (tmp_path / "mcq.jsonl").write_text(json.dumps(choices))
    with pytest.raises(ValueError, match=r"entry '0': 'correct_answer' is '4', expected 0 to 3"):
        read_contests(tmp_path / "mcq.jsonl", "negbench")
    picture = {"path": None, "bytes": png(), "box": [6, 0, 2, 2]}
    with pytest.raises(ValueError, match=r"box \[6, 0, 2, 2\] lies outside 4 x 4 pixels"):
        load_image(picture, "7")
    whole, part = ({**picture, "box": box} for box in (None, [0, 0, 2, 2]))
    assert len({image_key(cell, "7") for cell in (picture, whole, part)}) == 3


def png():
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    return file.getvalue()
