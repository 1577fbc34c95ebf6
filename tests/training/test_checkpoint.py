"""Checkpoints: whole or not there; data or refused."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

pytest.importorskip("safetensors", reason="extra `recipes`")
from ascl_plugin.disk import put_back
from ascl_plugin.training import checkpoint
from ascl_plugin.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint

WEIGHTS = {"a": torch.arange(3.0), "b.weight": torch.ones(2, 2).T}


def names(folder):
    return [path.name for path in checkpoints(folder)]


def test_what_is_saved_is_loaded(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "step": 7, "best": {"rsum": -float("inf")}}
    path = save_checkpoint(tmp_path, 7, WEIGHTS, state)
    assert path == tmp_path / "checkpoint-0000007"
    weights, loaded = load_checkpoint(path)
    assert all(torch.equal(weights[k], v) for k, v in WEIGHTS.items()) and len(weights) == 2
    assert loaded["step"] == 7 and loaded["best"] == {"rsum": -float("inf")}
    moments = loaded["optimizer"]["state"][0]
    assert torch.equal(moments["exp_avg"], optimizer.state[parameter]["exp_avg"])


def test_the_last_two_are_kept_in_order_of_steps(tmp_path):
    (tmp_path / "checkpoint-notes").mkdir()  # somebody's own folder
    for step in (9_999_998, 5, 10_000_000):  # seven digits, one digit, eight digits
        save_checkpoint(tmp_path, step, WEIGHTS, {})
    assert names(tmp_path) == ["checkpoint-9999998", "checkpoint-10000000"]
    assert (tmp_path / "checkpoint-notes").is_dir()
    save_checkpoint(tmp_path, 10_000_001, WEIGHTS, {}, keep=1)
    assert names(tmp_path) == ["checkpoint-10000001"]


@pytest.mark.parametrize(
    ("owner", "name"), [(checkpoint, "save_file"), (torch, "save"), (os, "replace")]
)
def test_a_crash_while_writing_leaves_the_checkpoint_before(tmp_path, monkeypatch, owner, name):
    save_checkpoint(tmp_path, 1, WEIGHTS, {"step": 1})

    def crash(*_):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash)
        with pytest.raises(OSError, match="disk is full"):
            save_checkpoint(tmp_path, 2, WEIGHTS, {"step": 2})
    assert names(tmp_path) == ["checkpoint-0000001"]
    assert load_checkpoint(checkpoints(tmp_path)[-1])[1] == {"step": 1}
    save_checkpoint(tmp_path, 2, WEIGHTS, {"step": 2})  # what the crash left is in nobody's way
    assert names(tmp_path) == ["checkpoint-0000001", "checkpoint-0000002"]
    assert {p.name for p in tmp_path.iterdir()} == set(names(tmp_path))


def test_the_same_step_again_replaces_it(tmp_path):
    for value in (1, 2):
        save_checkpoint(tmp_path, 3, WEIGHTS, {"value": value})
    assert load_checkpoint(checkpoints(tmp_path)[0])[1] == {"value": 2}


@pytest.mark.parametrize("file", ["model.safetensors", "training.pt"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_a_damaged_file_is_an_error_that_names_the_folder(tmp_path, file, damage):
    path = save_checkpoint(tmp_path, 12, WEIGHTS, {"step": 12, "moments": torch.zeros(1000)})
    target = path / file
    if damage == "gone":
        target.unlink()
    else:
        whole = target.read_bytes()
        target.write_bytes(whole[: len(whole) // 2 if damage == "cut" else 0])
    with pytest.raises(ValueError, match=r"checkpoint-0000012 cannot be read \(.*delete this"):
        load_checkpoint(path)


@pytest.mark.parametrize("file", ["model.safetensors", "training.pt", "SHA256SUMS"])
def test_a_flipped_bit_is_found_though_the_file_can_be_read(tmp_path, file):
    path = save_checkpoint(tmp_path, 12, {"a": torch.zeros(1000)}, {"b": torch.zeros(1000)})
    content = bytearray((path / file).read_bytes())
    content[-2000 if file != "SHA256SUMS" else 3] ^= 1
    (path / file).write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint-0000012 cannot be read \(.*SHA256SUMS"):
        load_checkpoint(path)


def test_killed_while_a_checkpoint_was_replaced_it_comes_back(tmp_path):
    path = save_checkpoint(tmp_path, 3, WEIGHTS, {"step": 3})
    os.replace(path, tmp_path / ".checkpoint-0000003.old")
    (tmp_path / ".checkpoint-0000003.writing").mkdir()
    (tmp_path / ".checkpoint-0000001.removed").mkdir()
    put_back(tmp_path)
    assert load_checkpoint(path)[1] == {"step": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-0000003"]


class Payload:
    """Unpickled, it would write a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))])
def test_a_program_in_a_checkpoint_is_refused_and_not_run(tmp_path, write):
    path = save_checkpoint(tmp_path, 1, WEIGHTS, {})
    write({"step": Payload(tmp_path / "ran")}, path / "training.pt")
    (path / "SHA256SUMS").unlink()  # who puts a program there need not leave the sums
    with pytest.raises(ValueError, match="checkpoint-0000001 cannot be read"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()
