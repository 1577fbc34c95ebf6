"""Sources that stream, a shard at a time: tar files, tables, folders; what is wrong is named."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("datasets", reason="extra `recipes`")
import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ascl_plugin.data.images import load_image
from ascl_plugin.data.shards import Shards
from ascl_plugin.data.streaming import Stream


@pytest.fixture
def tars(tmp_path, write_tar, png):
    """A folder of three shards of four pairs each; picture n is of the red n."""
    for shard in range(3):
        numbers = range(4 * shard, 4 * shard + 4)
        pairs = {f"{n:02d}": {"png": png(n), "txt": f"red {n}".encode()} for n in numbers}
        write_tar(tmp_path / f"{shard}.tar", pairs)
    return tmp_path


def reds(rows):
    return [load_image(row["image"], "").getpixel((0, 0))[0] for row in rows]


def test_a_shard_is_read_from_any_row_on(tars):
    shards = Shards(f"{tars}/*.tar", split="val")
    assert shards.names == [f"{tars}/{n}.tar" for n in range(3)]
    assert reds(shards.read(2)) == [8, 9, 10, 11] and reds(shards.read(1, 3)) == [7]
    (row,) = shards.read(1, 3)
    assert (row["image_id"], row["captions"], row["split"]) == ("07", ["red 7"], "val")


def test_a_file_of_the_same_name_does_not_take_a_pictures_place(tars, monkeypatch, png):
    monkeypatch.chdir(tars)
    (tars / "00.png").write_bytes(png(99))
    (tars / "01.png").write_bytes(b"no picture")
    assert reds(Shards("*.tar").read(0)) == reds(Stream("*.tar"))[:4] == [0, 1, 2, 3]


def test_a_table_in_files_has_a_shard_a_file_and_rows_without_ids_a_name(tmp_path, png):
    for shard in range(2):
        numbers = range(3 * shard, 3 * shard + 3)
        columns = {"image": [png(n) for n in numbers], "text": [f"red {n}" for n in numbers]}
        table = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
        table.to_parquet(tmp_path / f"train-{shard}.parquet")
    shards = Shards(tmp_path)
    assert len(shards) == 2 and shards.names[1] == f"{tmp_path}, shard 1"
    assert reds(shards.read(1)) == [3, 4, 5]
    assert [row["image_id"] for row in shards.read(1, 1)] == ["train-1-1", "train-1-2"]


def test_a_folder_of_images_with_metadata(tmp_path, png):
    lines = []
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"red {number}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    shards = Shards(tmp_path)
    rows = [row for shard in range(len(shards)) for row in shards.read(shard)]
    assert sorted(zip(reds(rows), (row["captions"][0] for row in rows), strict=True)) == [
        (0, "red 0"), (1, "red 1"), (2, "red 2"),
    ]  # fmt: skip


def test_a_table_does_not_lead_to_files_elsewhere(tmp_path, png):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(1))
    (tmp_path / "data").mkdir()
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = [{"image": {"path": str(secret), "bytes": None}, "text": "red"}]
    table = pa.Table.from_pylist(rows, features.arrow_schema)
    pq.write_table(table, tmp_path / "data" / "train.parquet")
    with pytest.raises(ValueError, match=r"row 0 .*: the image is path .* not of the source"):
        list(Shards(tmp_path / "data").read(0))


@pytest.mark.parametrize("cut", [100, 600, 1000, 1536, 1800, 2048, 2560, 3584])
def test_a_tar_cut_anywhere_is_named(tars, cut):
    """In a header, in a picture, between two members, in the mark at the end."""
    whole = (tars / "1.tar").read_bytes()
    (tars / "1.tar").write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=r"1\.tar (cannot be read|is cut short)"):
        list(Shards(f"{tars}/*.tar").read(1))
    (tars / "0.tar").write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=r"0\.tar (cannot be read|is cut short)"):
        Shards(f"{tars}/*.tar")


def test_a_stream_names_the_source_of_a_broken_shard(tars):
    whole = (tars / "1.tar").read_bytes()
    (tars / "1.tar").write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"\*\.tar cannot be read after row 3: ReadError"):
        list(Stream(f"{tars}/*.tar"))


def test_what_is_not_there_is_named(tars, write_tar):
    with pytest.raises(FileNotFoundError, match=r"none/\*\.tar: no such tar files"):
        Shards("none/*.tar")
    with pytest.raises(FileNotFoundError, match="none: neither tar files, nor a folder"):
        Shards(tars / "none")
    write_tar(tars / "0.tar", {})
    with pytest.raises(ValueError, match=r"0\.tar cannot be read, or is empty"):
        Shards(f"{tars}/*.tar")
    (tars / "0.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"0\.tar cannot be read, or is empty"):
        Shards(f"{tars}/*.tar")


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"txt": b"red"}, r"1\.tar, row 0 \(x\): no image; there are "),
        ({"png": b"?"}, r"1\.tar, row 0 \(x\): no captions; there are "),
        ({"png": b"?", "txt": b" "}, r"1\.tar, row 0 \(x\): caption 0 is empty"),
        ({"png": b"?", "txt": b"\xff"}, r"1\.tar cannot be read at its beginning: Unicode"),
    ],
)
def test_a_row_that_lacks_something_is_named(tars, write_tar, files, error):
    write_tar(tars / "1.tar", {"x": files})
    with pytest.raises((ValueError, KeyError), match=error):
        list(Shards(f"{tars}/*.tar").read(1))


def test_a_picture_that_does_not_decode_is_named_with_its_shard(tars, write_tar):
    write_tar(tars / "1.tar", {"x": {"png": b"no picture", "txt": b"red"}})
    (row,) = Shards(f"{tars}/*.tar").read(1)
    with pytest.raises(ValueError, match=r"image x \(.*/1\.tar/x\.png\) does not decode"):
        load_image(row["image"], row["image_id"])
