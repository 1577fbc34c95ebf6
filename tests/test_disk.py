"""Writes are atomic, errors name the path, and changed files are found."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from ascl_plugin.disk import (
    SUMS,
    check_sums,
    put_back,
    remove_folder,
    write_sums,
    write_text,
    written,
)

FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "b.bin").write_bytes(b"")
    write_sums(tmp_path, ["a.bin", "b.bin"])
    return tmp_path


def test_what_was_written_is_fine_and_sha256sum_says_so_too(folder):
    check_sums(folder)
    subprocess.run(["sha256sum", "--strict", "-c", SUMS], cwd=folder, check=True)


@pytest.mark.parametrize("name", ["a.bin", SUMS])
def test_flipped_bits_and_missing_ends_are_found(folder, name):
    path = folder / name
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = [
        whole[:middle] + bytes([whole[middle] ^ 1 << b]) + whole[middle + 1 :] for b in range(8)
    ]
    for content in (*flipped, b"", whole[:1], whole[:70], whole[:-2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=SUMS):
            check_sums(folder)


def test_a_file_that_is_gone_is_named_and_none_outside_is_read(folder):
    (folder / "b.bin").unlink()
    with pytest.raises(ValueError, match=r"names 'b.bin', which is not there"):
        check_sums(folder)
    (folder / SUMS).write_text("0" * 64 + "  ../a.bin\n")
    with pytest.raises(ValueError, match=r"names '\.\./a.bin'"):
        check_sums(folder)


def write_file(path, content):
    write_text(path, content)


def write_shared(path, content):
    write_text(path, content, shared=True)


def write_folder(path, content):
    with written(path) as aside:
        aside.mkdir()
        (aside / "a").write_text(content)
        (aside / "deeper").mkdir()
        (aside / "deeper" / "b").write_text(content)


def read(path):
    files = [path / "a", path / "deeper" / "b"] if path.is_dir() else [path]
    (content,) = {file.read_text() for file in files}
    return content


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_what_is_written_replaces_what_was_and_folders_are_made(tmp_path, write):
    path = tmp_path / "not" / "yet" / "x"
    for content in ("first", "zweites: \u00fc"):
        write(path, content)
        assert read(path) == content and names(path.parent) == ["x"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError, RuntimeError])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_error_leaves_what_was(tmp_path, kind, error):
    path = tmp_path / "x"
    (write_file if kind == "file" else write_folder)(path, "before")
    told = OSError if error is RuntimeError else error
    with pytest.raises(told, match="broken"), written(path) as aside:
        if kind == "folder":
            aside.mkdir()
        (aside if kind == "file" else aside / "a").write_text("half")
        assert read(path) == "before"
        raise error("broken")
    assert read(path) == "before" and names(tmp_path) == ["x"]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(OSError, match="x cannot be written"), written(tmp_path / "x"):
        pass
    assert names(tmp_path) == []


def test_a_folder_whose_place_cannot_be_taken_comes_back(tmp_path, monkeypatch):
    write_folder(tmp_path / "x", "before")
    replace = os.replace

    def only_others(source, target):
        if source.name == ".x.writing":
            raise OSError(errno.EIO, "broken")
        replace(source, target)

    monkeypatch.setattr(os, "replace", only_others)
    with pytest.raises(OSError, match="broken"):
        write_folder(tmp_path / "x", "after")
    assert read(tmp_path / "x") == "before" and names(tmp_path) == ["x"]


def test_a_file_takes_no_folders_place(tmp_path):
    write_folder(tmp_path / "x", "before")
    with pytest.raises(OSError, match=r"x cannot be written \(.*[Dd]irectory"):
        write_file(tmp_path / "x", "after")
    assert read(tmp_path / "x") == "before" and names(tmp_path) == ["x"]


def exits_at(event, work):
    """Runs `work` in a process that ends, as if killed, in place of this operation on files."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        count = [0]

        def hook(name, _):
            count[0] += name in FILE_EVENTS
            if count[0] == event:
                os._exit(9)

        sys.addaudithook(hook)
        work()
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("write", [write_file, write_shared, write_folder])
def test_killed_at_any_operation_the_old_or_the_new_one_is_there(tmp_path, write):
    path, seen = tmp_path / "x", []
    write(path, "old")
    for event in range(1, 100):
        code = exits_at(event, lambda: write(path, "new"))
        if code == 0:
            break
        assert code == 9
        if write is not write_folder:  # at once; a folder, when its owner comes back
            assert read(path) in ("old", "new")
        put_back(tmp_path)
        assert names(tmp_path) == ["x"]
        seen.append(read(path))
        write(path, "old")
    else:
        raise AssertionError("it never came to its end")
    assert read(path) == "new" and seen[0] == "old"
    assert len(seen) >= (8 if write is write_folder else 2)


def test_two_processes_may_write_a_shared_one(tmp_path):
    path = tmp_path / "x"
    with written(path, shared=True) as one:
        one.write_text("one, which is longer")
        with written(path, shared=True) as two:
            two.write_text("two")
        assert read(path) == "two"
    assert read(path) == "one, which is longer" and names(tmp_path) == ["x"]


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_all_of_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, write):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (done.append(os.fstat(f).st_size), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append(b.name), replace(a, b)))
    write(tmp_path / "x", "content")
    assert done == ([7, "x"] if write is write_file else [7, 7, "x"])


@contextmanager
def files_of_at_most(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save_npy(array, path):
    with open(path, "wb") as file:
        np.save(file, array)


def save_safetensors(array, path):
    pytest.importorskip("safetensors.torch").save_file({"a": torch.from_numpy(array)}, path)


def save_torch(array, path):
    with open(path, "wb") as file:
        torch.save(torch.from_numpy(array), file)


@pytest.mark.parametrize(
    ("save", "reason"),
    [
        (lambda array, path: path.write_bytes(array.tobytes()), "File too large"),
        (save_safetensors, "File too large"),
        (save_torch, "File too large"),
        (save_npy, "20000 requested and .* written"),
    ],
    ids=["bytes", "safetensors", "torch", "numpy"],
)
def test_a_file_larger_than_there_is_room_for(tmp_path, save, reason):
    path = tmp_path / "x"
    write_file(path, "before")
    told = pytest.raises(OSError, match=rf"x cannot be written \(.*{reason}")
    with files_of_at_most(50_000), told, written(path) as aside:
        save(np.ones(20_000), aside)
    assert read(path) == "before" and names(tmp_path) == ["x"]
    with written(path) as aside:
        save(np.ones(20_000), aside)
    assert names(tmp_path) == ["x"] and path.stat().st_size >= 160_000


def test_a_removed_folder_is_gone_at_once(tmp_path):
    write_folder(tmp_path / "x", "before")
    (tmp_path / ".x.removed").mkdir()
    remove_folder(tmp_path / "x")
    assert names(tmp_path) == []
    write_folder(tmp_path / "x", "before")
    assert exits_at(3, lambda: remove_folder(tmp_path / "x")) == 9
    assert names(tmp_path) == [".x.removed"]
    put_back(tmp_path)
    assert names(tmp_path) == []
