"""SugarCrepe's files: what a correct one gives, and the error that a wrong one brings."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("datasets", reason="extra `recipes`")
from ascl_plugin.data.sugarcrepe import read_sugarcrepe


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
    found = read_sugarcrepe(folder / "data", folder / "coco")
    assert {kind: len(rows) for kind, rows in found.items()} == {"add_obj": 2, "swap_att": 1}
    assert found["add_obj"][1] == {
        "image_id": "000000000002.jpg",
        "image": {"path": str(folder / "coco" / "val2017" / "000000000002.jpg"), "bytes": None},
        "caption": "A dog on a bench.",
        "negative_caption": "A dog and a cat on a bench.",
    }


def test_one_file_and_no_pictures(folder):
    found = read_sugarcrepe(folder / "data" / "swap_att.json", pictures=False)
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
        ([entry()], ValueError, "got list"),
        ({}, ValueError, "no entries"),
        ("{", ValueError, "not JSON"),
    ],
)
def test_a_wrong_entry_is_named(folder, content, error, message):
    write(folder, "swap_att", content)
    with pytest.raises(error, match=f"swap_att.json.*{message}"):
        read_sugarcrepe(folder / "data", folder / "coco")


def test_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \.json"):
        read_sugarcrepe(tmp_path)
