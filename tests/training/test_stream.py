"""Runs fed from a stream: the rows and weights of one left alone, whatever happens on the way."""

from __future__ import annotations

import json
import shutil
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("accelerate", reason="extra `recipes`")
import stream_ranks as program

from ascl_plugin.data import scenes
from ascl_plugin.training.checkpoint import checkpoints, load_checkpoint

pytestmark = pytest.mark.recipe
SHARDS, EACH, LANES = 6, 4, 3


@pytest.fixture(scope="module")
def found(tmp_path_factory, run_ranks, write_tar):
    """Folder of all runs, and what each process of a run found.

    One process dies in batch 7, the second of step 4, and two go on from the checkpoint of step 3;
    two are stopped in batch 4, the first of step 3, and one goes on.
    """
    out = tmp_path_factory.mktemp("runs")
    (out / "shards").mkdir()
    rows = scenes.make("train", SHARDS * EACH, 0)
    for shard in range(SHARDS):
        pairs = {}
        for row in rows.select(range(EACH * shard, EACH * shard + EACH)):
            captions = json.dumps({"captions": row["captions"]}).encode()
            pairs[row["image_id"]] = {"png": row["image"]["bytes"], "json": captions}
        write_tar(out / "shards" / f"{shard}.tar", pairs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs = {
        "alone": [program.run(out, "alone")],
        "1-2, first": [program.run(out, "1-2", kill_at=7)],
    }
    ranks = run_ranks(program.__file__, out)
    runs |= {name: [rank[name] for rank in ranks] for name in ranks[0]}
    runs["2-1, then"] = [program.run(out, "2-1", "--resume", "--num_workers=2")]
    torch.set_num_threads(threads)
    return out, runs


def batches(found, run):
    """What was in each batch, the processes' parts one after another."""
    parts = [seen for _, seen in found[1][run]]
    return [list(chain.from_iterable(batch)) for batch in zip(*parts, strict=True)]


def test_batches_are_of_all_lanes_and_have_no_image_twice(found):
    """And no row comes again before the pass is over, with another caption then."""
    assert found[1]["alone"][0][0] == 0
    seen = batches(found, "alone")
    assert len(seen) == 8 and len(seen[0][0]) == 4 and len(seen[-1][0]) == 7
    shown = {}
    for number, batch in enumerate(seen):
        rows = [line[0] for line in batch]
        assert len(set(rows)) == 6
        for place, line in enumerate(batch):
            shown.setdefault(line[0], []).append((number // 4, place // 2, line[1]))
    assert set(shown) == set(range(SHARDS * EACH))
    for times in shown.values():
        passes, lanes, captions = zip(*times, strict=True)
        assert passes == (0, 1) and len(set(lanes)) == 1 and len(set(captions)) == 2


@pytest.mark.parametrize(("name", "until", "since"), [("1-2", 7, 6), ("2-1", 6, 6)])
def test_a_run_goes_on_with_the_right_rows(found, name, until, since):
    """On another number of processes: rows, captions, positives, noise seeds, pixels."""
    expected = batches(found, "alone")
    assert all(status != 0 for status, _ in found[1][f"{name}, first"])
    assert all(status == 0 for status, _ in found[1][f"{name}, then"])
    assert batches(found, f"{name}, first") == expected[:until]
    assert batches(found, f"{name}, then") == expected[since:]


@pytest.mark.parametrize("name", ["1-2", "2-1"])
def test_it_ends_with_the_weights_of_a_run_left_alone(found, name):
    """In doubles."""
    ours, expected = (
        load_file(checkpoints(found[0] / run)[-1] / "model.safetensors") for run in (name, "alone")
    )
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-6, msg=key)


def test_a_checkpoint_says_where_each_lane_stands(found):
    """Eight batches of four a pass: at the end of the second pass."""
    _, state = load_checkpoint(checkpoints(found[0] / "2-1")[-1])
    assert [position[0] for position in state["feed"]] == [1] * LANES


def test_other_shards_and_other_lanes_do_not_go_on(found, tmp_path, capsys):
    out, _ = found
    shutil.copytree(out / "shards", tmp_path / "shards")
    (tmp_path / "shards" / "5.tar").unlink()
    shutil.copytree(out / "alone", tmp_path / "run")
    assert program.run(tmp_path, "run", "--resume")[0] == 2
    assert (
        "training data='a stream of 6 shards', this run has 'a stream of 5 shards'"
        in capsys.readouterr().err
    )
    shutil.copy(out / "shards" / "5.tar", tmp_path / "shards")
    assert program.run(tmp_path, "run", "--resume", "--stream_lanes=6")[0] == 2
    assert "written with stream_lanes=3, this run has 6" in capsys.readouterr().err
    small = Path(__file__).parents[2] / "recipes" / "configs" / "small.yaml"  # as of streams
    plain = [*program.STREAM[:-1], "--resume", f"--config={small}"]
    assert program.program.run(tmp_path / "run", *plain)[0] == 2
    assert "written with steps_per_epoch=2, this run has 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--max_steps=0"], "--train_stream has no end: --max_steps says after how many steps"),
        (["--stream_lanes=7"], "7 lanes do not divide a batch of 6"),
        (["--train_stream=none/*.tar"], "none/*.tar: no such tar files"),
    ],
)
def test_a_mistake_is_told_in_one_line(found, tmp_path, capsys, options, error):
    assert program.run(found[0], tmp_path, *options)[0] == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"error: {error}")


def test_a_broken_picture_is_named_with_its_shard(found, tmp_path, capsys, write_tar):
    shutil.copytree(found[0] / "shards", tmp_path / "shards")
    bad = {"bad": {"png": b"no picture", "json": b'{"captions": ["a"]}'}}
    write_tar(tmp_path / "shards" / "3.tar", {**bad})
    options = ["--batch_size=6", "--stream_lanes=1", "--num_workers=1"]
    assert program.run(tmp_path, "run", *options)[0] == 2
    assert "shards/3.tar/bad.png) does not decode" in capsys.readouterr().err
