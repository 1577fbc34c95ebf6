"""Batches of a stream: whose order is a function of the seed, gone on with from any place."""

from __future__ import annotations

import json
import tracemalloc
from itertools import chain, islice, pairwise

import pytest

pytest.importorskip("datasets", reason="extra `recipes`")

from ascl_plugin.data.lanes import START, Lanes, Position

SIZES = (5, 7, 4, 6, 5, 3)  # rows of the shards
BATCH = 6


@pytest.fixture(scope="module")
def source(tmp_path_factory, write_tar, png):
    """Six tar files, pictures of three captions each."""
    folder, first = tmp_path_factory.mktemp("shards"), 0
    captions = json.dumps({"captions": ["one", "two", "three"]}).encode()
    for shard, size in enumerate(SIZES):
        samples = {
            f"{n:02d}": {"png": png(n), "json": captions} for n in range(first, first + size)
        }
        write_tar(folder / f"{shard}.tar", samples)
        first += size
    return f"{folder}/*.tar"


def make(source, lanes=2, buffer=8, **options):
    return Lanes(source, BATCH, lanes=lanes, buffer=buffer, **options)


def chunks(lanes, lane, number, start=START):
    return list(islice(lanes.chunks(lane, start), number))


def seen(chunk):
    rows = chunk[0]
    return [(r["image_id"], r["row"], r["epoch"], r["caption_index"]) for r in rows]


def test_a_pass_has_every_row_once_but_those_that_fill_no_chunk(source):
    lanes = make(source)
    passes = {}
    for lane in range(2):
        for chunk in chunks(lanes, lane, 16):
            assert len({r["epoch"] for r in chunk[0]}) == 1 and len(chunk[0]) == 3
            for row in chunk[0]:
                passes.setdefault((lane, row["epoch"]), []).append(row["image_id"])
    whole = [set(passes[lane, 0]) for lane in range(2)]
    assert not whole[0] & whole[1] and len(whole[0] | whole[1]) >= sum(SIZES) - 2 * 2
    for lane in range(2):
        for epoch in range(3):
            ids = passes[lane, epoch]
            assert len(ids) == len(set(ids)) and abs(len(ids) - len(whole[lane])) == 0
            others = set(chain(*(passes[1 - lane, e] for e in range(3))))
            assert not set(ids) & others  # an image stays in its lane: no batch has it twice
        assert passes[lane, 0] != passes[lane, 1]


def test_rows_are_shuffled_across_shards(source):
    lanes = make(source, lanes=1, buffer=12)
    shards = [r["row"] % len(SIZES) for chunk in chunks(lanes, 0, 4) for r in chunk[0]]
    assert len(shards) == 24 and sum(a != b for a, b in pairwise(shards)) > 8


@pytest.mark.parametrize("lane", [0, 1])
def test_it_goes_on_from_any_chunk(source, lane):
    """Over the borders of blocks, shards and passes."""
    lanes = make(source)
    whole = chunks(lanes, lane, 16)
    assert {position.epoch for _, position in whole} >= {0, 1, 2}
    for number, (_, position) in enumerate(whole[:-1], 1):
        plain = Position(*map(int, position))
        rest = chunks(make(source), lane, 16 - number, plain)
        assert list(map(seen, rest)) == list(map(seen, whole[number:])), position


def test_the_order_is_of_the_seed(source):
    first = list(map(seen, chunks(make(source, seed=1), 0, 10)))
    assert first == list(map(seen, chunks(make(source, seed=1), 0, 10)))
    assert first != list(map(seen, chunks(make(source, seed=2), 0, 10)))
    assert first != list(map(seen, chunks(make(source, seed=1, buffer=20), 0, 10)))


def test_a_row_has_its_number_whatever_the_order_and_another_caption_each_pass(source):
    numbers, captions = {}, {}
    for seed, lanes in ((0, 1), (1, 2), (2, 3)):
        made = make(source, lanes=lanes, seed=seed)
        for lane in range(lanes):
            for row in chain(*(chunk[0] for chunk in chunks(made, lane, 30))):
                assert numbers.setdefault(row["image_id"], row["row"]) == row["row"]
                if row["epoch"] < 3:
                    shown = captions.setdefault((seed, row["image_id"]), [])
                    assert row["caption_index"] not in shown
                    shown.append(row["caption_index"])
    assert len(set(numbers.values())) == len(numbers) == sum(SIZES)
    assert {tuple(shown) for shown in captions.values()} > {(0, 1, 2), (2, 1, 0)}


@pytest.mark.parametrize(
    ("shards", "batch", "lanes"),
    [(6, 6, 6), (6, 64, 2), (331, 64, 8), (9, 64, 1), (16, 64, 8), (7, 64, 1), (1, 8, 1)],
)
def test_without_a_number_lanes_share_evenly(shards, batch, lanes, tmp_path, write_tar):
    for shard in range(shards):
        write_tar(tmp_path / f"{shard:03d}.tar", {"x": {"png": b"?", "txt": b"a"}})
    assert Lanes(f"{tmp_path}/*.tar", batch).count == lanes


def test_the_sample_is_of_the_source_as_it_lies(source):
    ids = [row["image_id"] for row in make(source, seed=5).sample(8)]
    assert ids == [f"{n:02d}" for n in range(8)]
    assert len(make(source).sample(1000)) == sum(SIZES)


def test_what_cannot_be_is_told(source, tmp_path, write_tar, png):
    with pytest.raises(ValueError, match="4 lanes do not divide a batch of 6"):
        make(source, lanes=4)
    with pytest.raises(ValueError, match=r"12 lanes of 6 shard\(s\)"):
        Lanes(source, 12, lanes=12)
    pair = {"png": png(1), "txt": b"red"}
    write_tar(tmp_path / "a.tar", {"x": pair, "y": pair})
    with pytest.raises(ValueError, match=r"a\.tar .* hold 2 row\(s\), and 6 of each batch come"):
        next(make(f"{tmp_path}/*.tar", lanes=1).chunks(0))
    write_tar(tmp_path / "b.tar", {})
    with pytest.raises(ValueError, match=r"b\.tar holds no rows; remove it"):
        list(islice(Lanes(f"{tmp_path}/*.tar", 2, lanes=1).chunks(0), 3))


def test_memory_does_not_grow_with_the_source(tmp_path, write_tar):
    """Rows of 20 kB; of 600 a lane has 100 and a few chunks in memory."""
    data = bytes(20_000)
    for shard in range(4):
        pairs = {f"{shard}-{number}": {"png": data, "txt": b"a"} for number in range(300)}
        write_tar(tmp_path / f"{shard}.tar", pairs)
    lanes = Lanes(f"{tmp_path}/*.tar", 8, lanes=2, buffer=200)
    rows = lanes.chunks(0)
    next(rows)
    tracemalloc.start()
    for _ in islice(rows, 400):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 * len(data), f"{peak:,} bytes"
