"""Sources that stream, a shard at a time: tar files, tables, folders; errors name shard and row."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import re
import tarfile
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("datasets", reason="extra `recipes`")
import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ascl_plugin.data.caption_table import caption_table
from ascl_plugin.data.images import load_image
from ascl_plugin.data.lanes import Lanes
from ascl_plugin.data.readers import read
from ascl_plugin.data.shards import Shards, windows

RECIPE = Path(__file__).parents[2] / "recipes" / "extract_features.py"
EVERY = [f"{n:02d}" for n in range(12)]


@pytest.fixture
def tars(tmp_path, write_tar, png):
    """A folder of three shards of four pairs each; picture n is of the red n."""
    for shard in range(3):
        numbers = range(4 * shard, 4 * shard + 4)
        pairs = {f"{n:02d}": {"png": png(n), "txt": f" red {n}\n".encode()} for n in numbers}
        write_tar(tmp_path / f"{shard}.tar", pairs)
    return tmp_path


def reds(rows):
    return [load_image(row["image"], "").getpixel((0, 0))[0] for row in rows]


def ids(rows):
    return [row["image_id"] for row in rows]


def test_a_shard_is_read_from_any_row_on(tars):
    shards = Shards(f"{tars}/*.tar", split="val")
    assert shards.names == [f"{tars}/{n}.tar" for n in range(3)]
    assert reds(shards.read(2)) == [8, 9, 10, 11] and reds(shards.read(1, 3)) == [7]
    (row,) = shards.read(1, 3)
    assert (row["image_id"], row["captions"], row["split"]) == ("07", ["red 7"], "val")


def test_patterns_have_braces_and_lists(tars):
    names = [f"{tars}/{n}.tar" for n in range(3)]
    assert Shards(f"{tars}/{{0..2}}.tar").names == names
    assert Shards(f"{tars}/0.tar::{tars}/2.tar").names == names[::2]
    assert Shards([f"{tars}/2.tar", f"{tars}/[01].tar"]).names == names
    with pytest.raises(FileNotFoundError, match=r"/3\.tar: no such tar files"):
        Shards(f"{tars}/{{0..3}}.tar")
    with pytest.raises(ValueError, match="missing environment variable wds_WDS_NONE"):
        Shards("${NONE}/0.tar")


@pytest.mark.parametrize("scheme", ["pipe:touch ran;cat", "http://x", "file:"])
def test_addresses_are_refused_and_nothing_runs(tars, scheme, monkeypatch):
    monkeypatch.chdir(tars)
    with pytest.raises(ValueError, match="addresses are not opened; give the path of a local file"):
        Shards(["0.tar", f"{scheme} 1.tar"])
    assert not Path("ran").exists()


def test_samples_of_a_shard_may_have_other_suffixes(tmp_path, write_tar, png):
    said = json.dumps({"captions": ["one", "two"], "width": 40}).encode()
    pickled = b"cos\nsystem\n(S'touch ran'\ntR."
    samples = {
        "x": {"png": png(1), "json": said, "pyd": pickled},
        "y": {"JPG": png(2), "txt": b"three", "json": b"{}"},
        "z": {"webp": png(3), "id": b"77", "caption": "ö".encode()},
    }
    write_tar(tmp_path / "a.tar", samples)
    write_tar(tmp_path / "b.tar", {"__notes__/x": {"txt": b"none"}, **samples})
    for name in "ab":
        rows = list(Shards(tmp_path / f"{name}.tar").read(0))
        assert ids(rows) == ["x", "y", "77"] and reds(rows) == [1, 2, 3]
        assert [row["captions"] for row in rows] == [["one", "two"], ["three"], ["ö"]]
    assert not Path("ran").exists()


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_share_rows(tars, world):
    """Also where shards do not share out evenly."""
    shares = [ids(Shards(f"{tars}/*.tar").share(rank, world)) for rank in range(world)]
    assert sorted(chain(*shares)) == EVERY
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert shares[0] == (EVERY[:4] if world == 3 else EVERY[::world])


def test_windows(tars):
    assert [len(w) for w in windows(Shards(f"{tars}/*.tar").share(), 5)] == [5, 5, 2]
    assert list(windows([], 8)) == []


def test_a_file_of_the_same_name_does_not_take_a_pictures_place(tars, monkeypatch, png):
    monkeypatch.chdir(tars)
    (tars / "00.png").write_bytes(png(99))
    (tars / "01.png").write_bytes(b"no picture")
    assert reds(Shards("*.tar").read(0)) == [0, 1, 2, 3]


def test_a_table_in_files_has_a_shard_a_file_and_rows_without_ids_a_name(tmp_path, png):
    for shard in range(2):
        numbers = range(3 * shard, 3 * shard + 3)
        columns = {"image": [png(n) for n in numbers], "text": [f"red {n}" for n in numbers]}
        table = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
        table.to_parquet(tmp_path / f"train-{shard}.parquet")
    shards = Shards(tmp_path)
    assert len(shards) == 2 and shards.names[1] == f"{tmp_path}, shard 1"
    assert reds(shards.read(1)) == [3, 4, 5]
    assert ids(shards.read(1, 1)) == ["train-1-1", "train-1-2"]


def test_a_folder_of_images_with_metadata(tmp_path, png):
    lines = []
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"red {number}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    rows = list(Shards(tmp_path).share())
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


@pytest.mark.parametrize("cut", [0, 100, 600, 1000, 1536, 1800, 2048, 2560, 3584])
def test_a_tar_cut_anywhere_is_named(tars, cut):
    """In a header, in a picture, between two members."""
    whole = (tars / "1.tar").read_bytes()
    (tars / "1.tar").write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=r"1\.tar cannot be read a"):
        list(Shards(f"{tars}/*.tar").share())


def test_a_damaged_header_is_no_end(tars):
    whole = bytearray((tars / "1.tar").read_bytes())
    whole[4 * 512 : 5 * 512] = b"x" * 512  # of the second picture
    (tars / "1.tar").write_bytes(whole)
    with pytest.raises(ValueError, match=r"1\.tar cannot be read .*damaged: byte 2048 begins nei"):
        list(Shards(f"{tars}/*.tar").share())


def test_what_is_not_there_is_named(tars):
    with pytest.raises(FileNotFoundError, match=r"none/\*\.tar: no such tar files"):
        Shards("none/*.tar")
    with pytest.raises(FileNotFoundError, match="none: neither tar files, nor a folder"):
        Shards(tars / "none")
    with pytest.raises(ValueError, match="unknown split 'tset'; known are train, val, test"):
        Shards(f"{tars}/*.tar", "tset")


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"txt": b"red"}, r"1\.tar, row 0 \(x\): no image; there are __key__, __url__, txt"),
        ({"png": b"?", "cls": b"3"}, r"1\.tar, row 0 \(x\): no captions; there are "),
        ({"png": b"?", "txt": b" "}, r"1\.tar, row 0 \(x\): caption 0 is empty"),
        ({"png": b"?", "txt": b"\xff"}, r"1\.tar, row 0 \(x\): txt cannot be read: Unicode"),
        (
            {"png": b"?", "json": b"[" * 99999},
            r"row 0 \(x\): json cannot be read: RecursionError",
        ),
        ({"png": b"", "txt": b"red"}, r"1\.tar, row 0 \(x\): png is empty"),
        ({"a.png": b"?", "b.png": b"?", "txt": b"red"}, r"image in a\.png, b\.png; a key ends at"),
        ({"png": b"?", "Png": b"?"}, r"1\.tar cannot be read .*: ..x\.Png: duplicate file name"),
    ],
)
def test_a_row_that_lacks_something_is_named(tars, write_tar, files, error):
    write_tar(tars / "1.tar", {"x": files})
    with pytest.raises((ValueError, KeyError), match=error):
        list(Shards(f"{tars}/*.tar").read(1))


def test_a_member_that_claims_much_is_refused(tmp_path):
    """A sparse member of 512 bytes that says it is a terabyte; a compressed file."""
    member = tarfile.TarInfo("x.png")
    member.size = 512
    head = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    head[156:157] = tarfile.GNUTYPE_SPARSE
    head[386:410] = b"%011o\0%011o\0" % (0, 512)
    head[483:495] = bytes([128, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])  # 2 ** 32 bytes
    head[148:156] = b"%06o\0 " % (256 + sum(head[:148]) + sum(head[156:512]))
    (tmp_path / "a.tar").write_bytes(bytes(head) + bytes(3 * 512))
    with pytest.raises(ValueError, match=r"a\.tar .*: x\.png has 4294967296 bytes, 268435456 at"):
        list(Shards(tmp_path / "a.tar").read(0))
    long = {"x.png": "0" * 2**24}  # of a header, which tarfile takes into memory
    with tarfile.open(tmp_path / "b.tar", "w:gz") as tar:
        member = tarfile.TarInfo("x.png")
        member.pax_headers = long
        tar.addfile(member, io.BytesIO())
    with pytest.raises(ValueError, match=r"b\.tar .*: it unpacks to more than 100 times its size"):
        list(Shards(tmp_path / "b.tar").read(0))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.TAR"])
def test_compressed_shards(tars, name, tmp_path):
    """By their first bytes; a damaged one is no shorter one."""
    packed = gzip.compress((tars / "1.tar").read_bytes())
    (tmp_path / name).write_bytes(packed)
    assert reds(Shards(tmp_path / name).read(0)) == [4, 5, 6, 7]
    for bad in (packed[:-30], packed[:-8] + bytes(8)):
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(ValueError, match=f"{name} cannot be read a"):
            list(Shards(tmp_path / name).read(0))


def test_names_of_two_dots(tmp_path, write_tar, png):
    samples = {"./a/x": {"input.JPG": png(1), "outputs.txt": b"one", "notes": b"?"},
               "y": {"jpg": png(2), "mask.png": png(9), "txt": b"two"}}  # fmt: skip
    write_tar(tmp_path / "a.tar", samples)
    rows = list(Shards(tmp_path / "a.tar").read(0))
    assert ids(rows) == ["a/x", "y"] and reds(rows) == [1, 2]
    assert [row["captions"] for row in rows] == [["one"], ["two"]]


@pytest.fixture
def spoilt(tars, write_tar, png):
    """The second shard: of five samples three lack something."""
    samples = {
        "a": {"png": png(1), "txt": b"one"}, "b": {"png": png(2)}, "c": {"txt": b"two"},
        "d": {"png": png(4), "txt": b"\xff"}, "e": {"png": png(5), "txt": b"five"},
    }  # fmt: skip
    write_tar(tars / "1.tar", samples)
    return tars


def test_samples_that_lack_something_are_left_out_and_counted(spoilt):
    shards = Shards(f"{spoilt}/*.tar", skip_bad=True)
    with pytest.warns(UserWarning, match=r"1\.tar: 3 sample\(s\) left out: .*row 1 \(b\): no cap"):
        assert ids(shards.read(1)) == ["a", "e"]
    with pytest.warns(UserWarning, match="3 sample"):
        assert ids(shards.read(1, 1)) == ["e"]  # rows that are given count
    assert [error[len(f"{spoilt}/1.tar, ") :][:9] for error in shards.skipped] == [
        "row 1 (b)", "row 2 (c)", "row 3 (d)",
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="3 sample"):
        rows, _ = next(Lanes(f"{spoilt}/1.tar", 2, skip_bad=True).chunks(0))
    assert sorted(ids(rows)) == ["a", "e"]


def test_a_data_root_of_tar_files_is_what_a_stream_is(spoilt, tmp_path, write_tar, png):
    """Patterns, splits by name, samples left out (also when the table is found in the cache)."""
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"split train: 3 sample\(s\) left out"):
            rows = read(f"{spoilt}/{{0..2}}.tar", skip_bad=True)["train"]
        assert ids(rows) == [*EVERY[:4], "a", "e", *EVERY[8:]]
    with pytest.raises(KeyError, match=r"row 1 \(b\): no captions"):
        read(spoilt)
    with pytest.raises(ValueError, match=r"no tar files of val; there are \['train'\]"):
        Shards(spoilt, "val")
    (tmp_path / "wds" / "test").mkdir(parents=True)
    sample = {"x": {"png": png(1), "txt": b"one"}}
    for name in ("coco_val2014-0.tar", "train-0.tar", "test/0.tar"):
        write_tar(tmp_path / "wds" / name, sample)
    assert {k: ids(v) for k, v in read(tmp_path / "wds").items()} == {
        name: ["x"] for name in ("train", "val", "test")
    }
    assert [*read(f"{tmp_path}/wds/*val*.tar")] == ["val"]
    assert Shards(tmp_path / "wds", "val").names == [f"{tmp_path}/wds/coco_val2014-0.tar"]


def test_a_key_in_two_shards_is_named_with_both(tars, write_tar, png):
    write_tar(tars / "3.tar", {"05": {"png": png(0), "txt": b"another"}})
    with pytest.raises(ValueError, match=r"'05' occurs twice, in .*1\.tar/05\.png and .*3\.tar/05"):
        read(tars)


def test_a_picture_that_does_not_decode_is_named_with_its_shard(tars, write_tar):
    write_tar(tars / "1.tar", {"x": {"png": b"no picture", "txt": b"red"}})
    (row,) = Shards(f"{tars}/*.tar").read(1)
    with pytest.raises(ValueError, match=r"image x \(.*/1\.tar/x\.png\) does not decode"):
        load_image(row["image"], row["image_id"])


def test_the_table_is_read_as_rows_or_is_not_there(tars):
    path = tars / "captions" / "train-00000-of-00001.parquet"
    with pytest.raises(KeyError), caption_table(path) as append:
        append([{"nothing": 0}])
    assert not list(path.parent.iterdir())
    with caption_table(path) as append:
        for window in windows(Shards(f"{tars}/*.tar").share(), 8):
            append(window)
    rows = read(path.parent)["train"]
    assert rows["image_id"][:] == EVERY and rows["captions"][3] == ["red 3"]


@pytest.mark.recipe
def test_features_stream_out_and_a_second_run_goes_on(
    tars, tmp_path, capsys, write_tar, run_ranks_of
):
    """On one process, stopped by a picture that is none; then on two, without the ones it has."""
    pytest.importorskip("timm", reason="extra `timm`")
    spec = importlib.util.spec_from_file_location("extract_features", RECIPE)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    assert recipe.main([f"--stream={tars}/*.tar", "--pooled_model=test_resnet"]) == 2

    def told():
        return capsys.readouterr().err

    assert "--stream needs --output_dir" in told()
    twice = [f"--stream={tars}/{{0,0b}}.tar", f"--output_dir={tmp_path}/no", "--cpu",
             "--pooled_model=test_resnet"]  # fmt: skip
    write_tar(tars / "0b.tar", {"3": {"png": b"?", "txt": b"red"}})
    assert recipe.main(twice) == 2
    assert re.search(r"'3' is of two pictures, .*/0\.tar/03\.png and .*/0b\.tar/3\.png", told())
    (tars / "0b.tar").unlink()
    bad = {"bad": {"png": b"no picture", "txt": b"nothing"}, "none": {"txt": b"no picture"}}
    write_tar(tmp_path / "9.tar", {"bad": bad["bad"]})
    options = [
        f"--stream={tars}/*.tar", f"--output_dir={tmp_path}/out", "--cpu", "--num_threads=1",
        "--pooled_model=test_resnet",
    ]  # fmt: skip
    assert recipe.main(options) == 2
    assert "9.tar/bad.png) does not decode" in told()
    pooled, captions = tmp_path / "out" / "pooled", tmp_path / "out" / "captions"
    made = {p.name: p.stat().st_mtime_ns for p in pooled.glob("*.npy")}
    assert sorted(p[:-4] for p in made) == EVERY[: len(made)] and len(made) >= 8
    assert not list(captions.iterdir())

    write_tar(tmp_path / "9.tar", bad)
    (captions / "train-00000-of-00001.parquet").write_bytes(b"of an earlier run")
    skipped = tmp_path / "skipped.txt"
    ranks = run_ranks_of(RECIPE, *options, f"--skip_bad={skipped}")
    assert [code for code, _, _ in ranks] == [0, 0], ranks
    assert "bad" in skipped.read_text() and "2 pictures skipped" in ranks[0][1]
    after = {p.name: p.stat().st_mtime_ns for p in pooled.glob("*.npy")}
    assert sorted(p[:-4] for p in after) == EVERY
    assert all(after[name] == made[name] for name in made)
    assert sorted(read(captions)["train"]["image_id"][:]) == EVERY
    assert np.load(pooled / "03.npy", allow_pickle=False).ndim == 1
