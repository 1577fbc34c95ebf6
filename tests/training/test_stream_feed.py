"""What a process reads of a stream: the lanes its share touches, ahead of what it has given."""

from __future__ import annotations

from itertools import chain, islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("accelerate", reason="extra `recipes`")
from ascl_plugin.asymmetry import AsymmetryCollator
from ascl_plugin.data.lanes import Lanes
from ascl_plugin.shares import Shares
from ascl_plugin.training import stream_feed
from ascl_plugin.training.parsing import parse_options
from ascl_plugin.training.resolve import resolve
from ascl_plugin.training.stream_feed import StreamFeed

BATCH, LANES, BATCHES = 12, 4, 20
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory, write_tar):
    """Eight shards of ten rows each."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(8):
        pairs = {f"{shard}-{n}": {"png": b"?", "txt": b"a"} for n in range(10)}
        write_tar(folder / f"{shard}.tar", pairs)
    return f"{folder}/*.tar"


@pytest.fixture
def make(source, monkeypatch):
    """A feed of one process of several."""

    def feed(rank=0, world=1, *more, batch_size=BATCH):
        given = [f"--batch_size={batch_size}", f"--max_steps={BATCHES}", "--epochs=2", *more]
        options = resolve(parse_options([*given, f"--train_stream={source}"]))
        ends = [batch_size * n // world for n in range(world + 1)]
        counts = tuple(b - a for a, b in pairwise(ends))
        monkeypatch.setattr(
            stream_feed, "shares", lambda way, rows, device: Shares(counts, rank, device)
        )
        collator = AsymmetryCollator(
            lambda texts: {"length": torch.tensor(list(map(len, texts)))}, None, "none", "none"
        )
        lanes = Lanes(source, batch_size, lanes=LANES, buffer=16)
        accelerator = SimpleNamespace(num_processes=world, device=CPU)
        return StreamFeed(lanes, collator, options, accelerator)

    return feed


def rows(feed, number):
    """Rows of each of the next batches, which may be of two epochs."""
    epochs = (feed.batches(epoch, 0) for epoch in range(3))
    return [batch["row"].tolist() for batch in islice(chain.from_iterable(epochs), number)]


@pytest.mark.parametrize(
    ("world", "read"),
    [(1, [4]), (2, [2, 2]), (3, [2, 2, 2]), (5, [1, 2, 2, 1, 1]), (8, [1] * 8), (12, [1] * 12)],
)
def test_shares_are_of_the_same_batches_and_touch_few_lanes(make, world, read):
    expected = rows(make(), BATCHES)
    shared = []
    for rank in range(world):
        feed = make(rank, world)
        assert len(feed.positions) == read[rank]
        shared.append(rows(feed, BATCHES))
    assert [list(chain(*parts)) for parts in zip(*shared, strict=True)] == expected
    assert all(len(set(batch)) == BATCH for batch in expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_is_behind_what_was_given_not_what_was_read_ahead(make, workers):
    feed = make(0, 1, f"--num_workers={workers}")
    whole = rows(make(), BATCHES)
    for number, batch in zip(range(7), feed.batches(0, 0), strict=False):
        assert batch["row"].tolist() == whole[number]
        other = make()
        other.load_state(feed.state())
        assert rows(other, 3) == whole[number + 1 : number + 4]
        assert number > 5 or feed._ahead or not workers


def test_an_epoch_has_its_batches_and_what_is_left_of_them(make):
    feed = make(0, 1, "--steps_per_epoch=3", "--gradient_accumulation_steps=2")
    assert feed.batches_per_epoch == 6
    assert len(list(feed.batches(0, 4))) == 2 and len(list(feed.batches(1, 0))) == 6


def test_rows_of_a_step_have_names(make):
    feed = make(0, 1, "--gradient_accumulation_steps=2", "--num_workers=1")
    several = feed.batches(0, 0)
    step = [next(several)["row"].tolist() for _ in range(4)][2:]
    names = feed.names([*step[0], *step[1]])
    assert names == [f"{row % 8}-{row // 8}" for row in chain(*step)]


def test_a_batch_needs_a_pair_for_each_process(make):
    with pytest.raises(ValueError, match=r"batch_size 4 on 5 process\(es\): a batch needs"):
        make(0, 5, batch_size=4)


def test_epochs_of_a_stream():
    def counted(*given):
        train = resolve(parse_options([*given, "--train_stream=x.tar"])).train
        return train.steps_per_epoch, train.epochs

    assert counted("--max_steps=100", "--epochs=7") == (15, 7)
    assert counted("--max_steps=100", "--epochs=7", "--steps_per_epoch=30") == (30, 4)
    with pytest.raises(ValueError, match="--train_stream has no end"):
        counted()
    with pytest.raises(ValueError, match="--steps_per_epoch needs --train_stream"):
        resolve(parse_options(["--steps_per_epoch=3"]))


def test_an_epoch_that_is_left_goes_on_behind_what_was_given(make):
    whole, feed = rows(make(), BATCHES), make(0, 1, "--num_workers=1")
    for number, batch in zip(range(4), feed.batches(0, 0), strict=False):
        assert batch["row"].tolist() == whole[number]
    assert [batch["row"].tolist() for batch in feed.batches(0, 4)] == whole[4:10]


def test_what_cannot_be_read_is_told_where_batches_are_taken(make, source, tmp_path, write_tar):
    feed = make()
    feed.lanes.shards.names[3] = str(tmp_path / "3.tar")
    (tmp_path / "3.tar").write_bytes(Path(source).with_name("3.tar").read_bytes()[:1500])
    with pytest.raises(ValueError, match=r"3\.tar cannot be read .* is cut short"):
        rows(feed, BATCHES)
