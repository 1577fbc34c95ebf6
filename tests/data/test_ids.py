"""Ids as they come: none is made up from what is missing, none joins different images."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest

pytest.importorskip("datasets")
import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ascl_plugin.data.readers import read
from ascl_plugin.data.rows import text_id
from ascl_plugin.data.shards import Shards


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def parquet(folder, **columns):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "train.parquet")
    return folder


def pictures(png, numbers):
    return [{"bytes": png(n), "path": None} for n in numbers]


def test_an_id_is_text():
    assert [text_id(x, "w") for x in ("a", 7, 7.0, np.float32(3).item())] == ["a", "7", "7", "3"]
    for missing in (None, float("nan"), "", " "):
        with pytest.raises(ValueError, match="w: the id is missing"):
            text_id(missing, "w")
    with pytest.raises(ValueError, match="no longer exact"):
        text_id(2.0**60, "w")
    for odd in (True, [1], {"a": 1}):
        with pytest.raises(ValueError, match="expected an id"):
            text_id(odd, "w")


@pytest.mark.parametrize("name", ["image_id", "filename"])
def test_a_missing_id_of_a_table(tmp_path, png, name):
    columns = {"image": pictures(png, range(3)), name: ["a", None, None], "caption": list("xyz")}
    with pytest.raises(ValueError, match=f"{name} of row 1: the id is missing"):
        read(parquet(tmp_path / "d", **columns))
    with pytest.raises(ValueError, match=f"row 1, {name}: the id is missing"):
        list(Shards(tmp_path / "d").share())


def test_ids_that_a_gap_made_floats(tmp_path, png):
    columns = {"image": pictures(png, range(2)), "caption": list("xy")}
    ids = pa.array([1.0, 391895.0])
    folder = parquet(tmp_path / "d", **columns, image_id=ids)
    assert read(folder)["train"]["image_id"][:] == ["1", "391895"]
    assert [row["image_id"] for row in Shards(folder).share()] == ["1", "391895"]
    caption_ids = pa.array([5.0, None])
    folder = parquet(tmp_path / "e", **columns, image_id=list("ab"), sentid=caption_ids)
    assert read(folder)["train"]["caption_ids"][:] == [["5"], ["b#0"]]


def test_ids_of_json(tmp_path, png):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(0))
    entry = {"filename": "a.png", "split": "train", "sentences": [{"raw": "x"}]}
    for given, expected in ((7.0, "7"), (None, None)):
        content = {"images": [{**entry, "cocoid": given}]}
        (tmp_path / "dataset_x.json").write_text(json.dumps(content))
        if expected:
            assert read(tmp_path)["train"]["image_id"][:] == [expected]
        else:
            with pytest.raises(ValueError, match=r"images\[0\]: the id is missing"):
                read(tmp_path)


def test_one_id_with_two_images(tmp_path, png):
    """Names repeat from folder to folder; what is joined by one has to be one image."""
    columns = {"caption": list("xyz"), "filename": ["v.jpg", "w.jpg", "v.jpg"]}
    same = parquet(tmp_path / "d", image=pictures(png, (0, 1, 0)), **columns)
    assert read(same)["train"]["captions"][:] == [["x", "z"], ["y"]]
    other = parquet(tmp_path / "e", image=pictures(png, (0, 1, 2)), **columns)
    with pytest.raises(ValueError, match=r"rows 0 and 2 have one id, 'v\.jpg', and different im"):
        read(other)
    split = parquet(tmp_path / "f", image=pictures(png, (0, 1, 2)), split=["train", "val", "train"],
                    **columns)  # fmt: skip
    with pytest.raises(ValueError, match=r"rows 0 and 1 have one id, 'v\.jpg', and different im"):
        read(split)


def tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return str(path)


def test_a_text_file_of_several_lines_is_several_captions(tmp_path, png):
    text = b"one\r\n\n two \nthree"
    path = tar(tmp_path / "a.tar", {"a.png": png(0), "a.txt": text})
    (row,) = Shards(path).share()
    assert row["captions"] == ["one", "two", "three"]


def test_no_caption_holds_a_line_break(tmp_path, png):
    """In the other sources a caption is one cell: its line breaks are white space."""
    path = tar(
        tmp_path / "a.tar", {"a.png": png(0), "a.json": b'{"caption": "a \\n\\n dog\\u2028runs"}'}
    )
    (row,) = Shards(path).share()
    assert row["captions"] == ["a dog runs"]
    folder = parquet(tmp_path / "d", image=pictures(png, [0]), caption=[["a\r\ndog", "b"]])
    assert read(folder)["train"]["captions"][:] == [["a dog", "b"]]
