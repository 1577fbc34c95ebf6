"""Errors of writing name the place; what is not what was written is found."""

from __future__ import annotations

import errno
import subprocess

import pytest
import torch

from ascl_plugin.disk import SUMS, check_sums, write_sums, writing


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "b.bin").write_bytes(b"")
    write_sums(tmp_path, ["a.bin", "b.bin"])
    return tmp_path


def test_what_was_written_is_fine_and_sha256sum_says_so_too(folder):
    check_sums(folder)
    subprocess.run(["sha256sum", "--strict", "-c", SUMS], cwd=folder, check=True)


def test_a_folder_without_sums_is_not_judged(tmp_path):
    check_sums(tmp_path)


@pytest.mark.parametrize("name", ["a.bin", SUMS])
@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_found(folder, name, bit):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(ValueError, match=SUMS):
        check_sums(folder)


@pytest.mark.parametrize("length", [0, 1, 70, 100])
def test_sums_that_are_cut_short_are_found(folder, length):
    path = folder / SUMS
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=SUMS):
        check_sums(folder)


def test_a_file_that_is_gone_is_named_and_none_outside_is_read(folder):
    (folder / "b.bin").unlink()
    with pytest.raises(ValueError, match=r"names 'b.bin', which is not there"):
        check_sums(folder)
    (folder / SUMS).write_text("0" * 64 + "  ../a.bin\n")
    with pytest.raises(ValueError, match=r"names '\.\./a.bin'"):
        check_sums(folder)


def test_a_full_disk_is_told_with_the_path(tmp_path):
    told = pytest.raises(OSError, match=r"run/log.jsonl cannot be written \(.*No space.*--resume")
    with told, writing(tmp_path / "run" / "log.jsonl"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_library_that_hides_the_reason_is_seen_through(tmp_path):
    told = pytest.raises(OSError, match=r"x cannot be written \(.*No space left")
    with told, writing(tmp_path / "x"), open("/dev/full", "wb") as file:
        torch.save({"a": torch.zeros(100_000)}, file)
