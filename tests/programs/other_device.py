"""The same numbers on another device: on a GPU if there is one, else on one that is pretended.

`tests/test_devices.py` runs this in a process of its own: a device has to be pretended before the
first backward pass.
"""

from __future__ import annotations

import sys

import pytest
import torch
from device_cases import CASES, Place, difference
from pretend_device import elsewhere


@pytest.fixture
def device():
    if torch.cuda.is_available():
        yield "cuda"
        return
    with elsewhere() as name:
        yield name


@pytest.mark.parametrize("name", CASES)
def test_another_device_gives_the_same_numbers(name, device):
    found = CASES[name](Place(device, torch.float32))
    assert difference(found, CASES[name](Place("cpu", torch.float64))) <= 1e-4


def test_the_pretended_device_refuses_what_a_gpu_refuses():
    with elsewhere() as device:
        there = torch.ones(2, 2, device=device)
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(2)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(RuntimeError, match="generator"):
            torch.randn(2, device=device, generator=torch.Generator())
        assert (there + 1)[torch.tensor([0])].cpu().tolist() == [[2.0, 2.0]]


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", __file__]))
