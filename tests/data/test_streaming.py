"""Pairs that stream in from tar files: whole, shared out, shuffled and gone on with by number."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("datasets", reason="extra `recipes`")

from ascl_plugin.data.images import load_image
from ascl_plugin.data.readers import read
from ascl_plugin.data.streaming import CaptionTable, Stream, windows

RECIPE = Path(__file__).parents[2] / "recipes" / "extract_features.py"
SHARDS, EACH = 4, 5


@pytest.fixture(scope="module")
def shards(tmp_path_factory, write_tar, png):
    """Four tar files of five pairs each; picture n is of the red n, and so its caption says."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(SHARDS):
        numbers = range(shard * EACH, (shard + 1) * EACH)
        samples = {
            f"pair{n:03d}": {"png": png(n), "txt": f" a red of {n}\n".encode()} for n in numbers
        }
        write_tar(folder / f"{shard}.tar", samples)
    return f"{folder}/*.tar"


def ids(*args, **options):
    return [row["image_id"] for row in Stream(*args, **options)]


EVERY = [f"pair{n:03d}" for n in range(SHARDS * EACH)]


def test_rows_are_whole(shards):
    rows = list(Stream(shards))
    assert [row["image_id"] for row in rows] == EVERY
    for number, row in enumerate(rows):
        assert row["captions"] == [f"a red of {number}"] and row["split"] == "train"
        assert load_image(row["image"], "").getpixel((0, 0)) == (number, 0, 0)


def test_several_captions_come_in_json(tmp_path, write_tar, png):
    said = json.dumps({"captions": ["one", "two"], "width": 40}).encode()
    write_tar(tmp_path / "a.tar", {"x": {"png": png(1), "json": said}})
    (row,) = Stream(tmp_path / "a.tar", split="val")
    assert row["captions"] == ["one", "two"] and row["split"] == "val"


def test_the_order_is_of_seed_and_epoch(shards):
    first = ids(shards, seed=1, buffer=6)
    assert first == ids(shards, seed=1, buffer=6)
    assert sorted(first) == EVERY and first != EVERY
    assert first != ids(shards, seed=2, buffer=6)
    assert first != ids(shards, seed=1, epoch=1, buffer=6)


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("seed", [None, 1])
def test_processes_share_rows_out(shards, world, seed):
    """Where shards do not share out evenly, too."""
    shares = [ids(shards, seed=seed, buffer=6, rank=r, world_size=world) for r in range(world)]
    assert sorted(chain(*shares)) == EVERY
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("skip", [1, 7, 20])
def test_it_goes_on_by_number(shards, skip):
    assert ids(shards, seed=1, buffer=6, skip=skip) == ids(shards, seed=1, buffer=6)[skip:]
    part = ids(shards, seed=1, rank=1, world_size=2)
    assert ids(shards, seed=1, rank=1, world_size=2, skip=skip) == part[skip:]


def test_windows(shards):
    assert [len(w) for w in windows(Stream(shards), 8)] == [8, 8, 4]
    assert list(windows([], 8)) == []


def test_what_is_wrong_is_named(tmp_path, write_tar, png):
    with pytest.raises(FileNotFoundError, match=r"none/\*\.tar: no such tar files"):
        Stream("none/*.tar")
    write_tar(tmp_path / "a.tar", {"x": {"png": png(1), "txt": b"  "}})
    with pytest.raises(ValueError, match=r"a\.tar, row 0 \(x\): caption 0 is empty"):
        list(Stream(tmp_path / "a.tar"))
    write_tar(tmp_path / "b.tar", {"y": {"png": png(1), "cls": b"3"}})
    with pytest.raises(KeyError, match=r"b\.tar, row 0 \(y\): no captions; there are "):
        list(Stream(tmp_path / "b.tar"))
    write_tar(tmp_path / "c.tar", {"z": {"txt": b"text"}})
    with pytest.raises(KeyError, match=r"\(z\): no image; there are "):
        list(Stream(tmp_path / "c.tar"))


def test_the_table_is_read_as_rows_or_is_not_there(shards, tmp_path):
    path = tmp_path / "captions" / "train-00000-of-00001.parquet"
    with pytest.raises(KeyError), CaptionTable(path) as table:
        table.write([{"nothing": 0}])
    assert not list(path.parent.iterdir())
    with CaptionTable(path) as table:
        for window in windows(Stream(shards), 8):
            table.write(window)
    rows = read(path.parent)["train"]
    assert rows["image_id"][:] == EVERY
    assert rows["captions"][3] == ["a red of 3"]


def main(argv):
    spec = importlib.util.spec_from_file_location("extract_features", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(argv)


def extracting(shards, out):
    return [
        "--stream", shards, "--output_dir", str(out), "--cpu", "--num_threads=1",
        "--pooled_model=test_resnet",
    ]  # fmt: skip


@pytest.mark.recipe
def test_features_stream_out_and_a_second_run_goes_on(shards, tmp_path, capsys, write_tar):
    """On one process, stopped by a picture that is none; then on two, without the ones it has."""
    pytest.importorskip("timm", reason="extra `timm`")
    assert main(["--stream", shards, "--pooled_model=test_resnet"]) == 2
    assert "--stream needs --output_dir" in capsys.readouterr().err
    source = Path(shards).parent
    for shard in source.glob("*.tar"):
        os.link(shard, tmp_path / shard.name)
    write_tar(tmp_path / "9.tar", {"bad": {"png": b"no picture", "txt": b"nothing"}})
    assert main(extracting(f"{tmp_path}/*.tar", tmp_path / "out")) == 2
    assert "9.tar/bad.png) does not decode" in capsys.readouterr().err
    pooled, captions = tmp_path / "out" / "pooled", tmp_path / "out" / "captions"
    made = {p.name: p.stat().st_mtime_ns for p in pooled.glob("*.npy")}
    assert sorted(p[:-4] for p in made) == EVERY[: len(made)] and len(made) >= 16
    assert not list(captions.iterdir())

    (captions / "train-00000-of-00001.parquet").write_bytes(b"of an earlier run")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launch, RECIPE, *extracting(f"{tmp_path}/*.tar", tmp_path / "out")]
    skipped = tmp_path / "skipped.txt"
    done = subprocess.run([*command, f"--skip_bad={skipped}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bad" in skipped.read_text() and "1 pictures skipped" in done.stdout
    after = {p.name: p.stat().st_mtime_ns for p in pooled.glob("*.npy")}
    assert sorted(p[:-4] for p in after) == EVERY
    assert all(after[name] == made[name] for name in made)
    assert sorted(read(captions)["train"]["image_id"][:]) == EVERY
    assert np.load(pooled / "pair003.npy", allow_pickle=False).ndim == 1
