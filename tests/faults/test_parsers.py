"""Spoilt files of every kind: each is read, or refused by an error that names it."""

from __future__ import annotations

import os
import random

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
