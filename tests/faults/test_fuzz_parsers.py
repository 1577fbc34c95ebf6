"""Spoilt files of every kind: each is read, or refused by an error that names it. See fuzz.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

for needed in ("datasets", "h5py", "transformers"):
    pytest.importorskip(needed, reason="extras `recipes` and `regions`")
sys.path.insert(0, str(Path(__file__).parent))

from fuzz_outcome import outcome  # noqa: E402
from fuzz_targets import TARGETS, file_of  # noqa: E402

SLOW = {"Parquet": 4, "model's config.json": 12, "model's weights": 12, "options, yaml": 12}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name of a target -> a folder with its valid files, and their bytes."""
    made = {}

    def folder(name):
        if name not in made:
            place = tmp_path_factory.mktemp("valid")
            TARGETS[name].make(place)
            assert outcome(TARGETS[name], place) == "read"
            made[name] = place, file_of(TARGETS[name], place).read_bytes()
        return made[name]

    return folder


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="limits of memory are Linux's")
@pytest.mark.parametrize("name", TARGETS)
def test_a_spoilt_file_is_read_or_named(folders, name):
    place, raw = folders(name)
    path = file_of(TARGETS[name], place)

    @settings(
        max_examples=SLOW.get(name, 100), deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(draw=st.randoms(use_true_random=True))
    def spoilt(draw):
        path.write_bytes(TARGETS[name].spoil(raw, draw))
        told = outcome(TARGETS[name], place)
        assert told in ("read", "refused"), told

    spoilt()


def test_the_harness_sees_what_is_wrong(tmp_path, monkeypatch):
    """A parser that crashes, names no place, runs for ever or takes all memory is told apart."""
    from dataclasses import replace

    import fuzz_outcome

    def endless(_):
        while True:
            pass

    def raising(error):
        def read(_):
            raise error

        return read

    monkeypatch.setattr(fuzz_outcome, "SECONDS", 0.05)
    target = TARGETS["caption's image, JSON"]
    for read, told in (
        (raising(TypeError("x")), "crash: TypeError"),
        (raising(ValueError("something is wrong")), "crash: no place in ValueError"),
        (raising(ValueError(f"{tmp_path}: " + "x" * 9999)), "crash: a message too long"),
        (raising(ValueError(f"{tmp_path}: it is cut short")), "refused"),
        (lambda _: bytearray(2**33), "crash: MemoryError"),
        (endless, "hang"),
    ):
        assert outcome(replace(target, read=read), tmp_path).startswith(told)


def test_the_spoilt_files_of_a_seed_are_always_the_same(folders):
    import random

    for name in ("Karpathy's JSON", "regions, npz", "scores, safetensors", "pictures"):
        _, raw = folders(name)
        first, again = (TARGETS[name].spoil(raw, random.Random(7)) for _ in range(2))
        assert (name == "regions, npz" or first == again) and first != raw
    assert json.loads(folders("Karpathy's JSON")[1])
