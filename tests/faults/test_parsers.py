"""Spoilt files of every kind: each is read, or refused by an error that names it."""

from __future__ import annotations

import os
import random

import outcomes
import pytest
from outcomes import outcome
from targets import TARGETS, file_of

SLOW = {"Parquet": 4, "model's config.json": 12, "model's weights": 12, "options, yaml": 12}


@pytest.fixture
def folder(name, tmp_path):
    """A folder with the valid files of a target."""
    TARGETS[name].make(tmp_path)
    assert outcome(TARGETS[name], tmp_path) == "read"
    return tmp_path


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="limits of memory are Linux's")
@pytest.mark.parametrize("name", TARGETS)
def test_a_spoilt_file_is_read_or_named(folder, name):
    """Always the same hundred."""
    path = file_of(TARGETS[name], folder)
    raw = path.read_bytes()
    for number in range(SLOW.get(name, 100)):
        path.write_bytes(TARGETS[name].spoil(raw, random.Random(f"{name} {number}")))
        found = outcome(TARGETS[name], folder)
        assert found in ("read", "refused"), f"input {number}: {found}"


def test_the_harness_sees_what_is_wrong(tmp_path, monkeypatch):
    """A parser that crashes, names no place, runs for ever or takes all memory is recognized."""

    def endless(_):
        while True:
            pass

    def raising(error):
        def read(_):
            raise error

        return read

    monkeypatch.setattr(outcomes, "SECONDS", 0.05)
    target = TARGETS["caption's image, text"]
    for read, found in (
        (raising(TypeError("x")), "crash: TypeError"),
        (raising(ValueError("something is wrong")), "crash: no place in ValueError"),
        (raising(ValueError(f"{tmp_path}: " + "x" * 9999)), "crash: a message too long"),
        (raising(ValueError(f"{tmp_path}: it is cut short")), "refused"),
        (lambda _: bytearray(2**33), "crash: MemoryError"),
        (endless, "hang"),
    ):
        assert outcome(target._replace(read=read), tmp_path).startswith(found)
