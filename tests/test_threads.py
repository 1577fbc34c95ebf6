"""Threads change what scoring costs, never a score, and leave torch as they found it."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from ascl_plugin.threads import side_by_side, use_cores


def test_in_order_on_several_threads_of_few_cores(cores):
    cores(4)
    together = threading.Barrier(2, timeout=20)  # both items must be begun for either to end

    def work(item):
        together.wait()
        return item, threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()

    found = side_by_side(work, ["a", "b"])
    assert [item for item, *_ in found] == ["a", "b"]
    assert len({thread for _, thread, *_ in found}) == 2
    assert {shared for *_, shared, _ in found} == {2}
    assert not any(recorded for *_, recorded in found)
    assert torch.get_num_threads() == 4


def test_autocast_is_carried_along(cores):
    cores(2)
    with torch.autocast("cpu", torch.bfloat16):
        inside = side_by_side(lambda x: (x @ x).dtype, [torch.eye(2)] * 2)
    outside = side_by_side(lambda x: (x @ x).dtype, [torch.eye(2)] * 2)
    assert inside == [torch.bfloat16] * 2 and outside == [torch.float32] * 2


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_comes_through(cores, count):
    cores(count)

    def work(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        side_by_side(work, [0, 1])
    assert torch.get_num_threads() == count


@pytest.mark.parametrize(
    ("asked", "environment", "expected"),
    [
        (3, {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}, 3),
        (0, {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, 6),
        (0, {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}, 3),
        (0, {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "8"}, 1),
        (0, {"OMP_NUM_THREADS": "4", "LOCAL_WORLD_SIZE": "2"}, 5),  # 5: as torch has it
        (0, {"LOCAL_WORLD_SIZE": "2"}, 5),
        (0, {"OMP_NUM_THREADS": "1"}, 5),
    ],
)
def test_cores_that_a_launcher_leaves_idle_are_used(
    cores, monkeypatch, asked, environment, expected
):
    cores(5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(6))
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
        if name in environment:
            monkeypatch.setenv(name, environment[name])
    assert use_cores(asked) == torch.get_num_threads() == expected
