"""The library on a device that is not the CPU: all of `programs/other_device.py`."""

from __future__ import annotations

from pathlib import Path

import forked
import pytest
from torch.utils import backend_registration


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch cannot pretend a device",
)
def test_another_device_gives_the_same_numbers(tmp_path):
    pytest.importorskip("huggingface_hub", reason="extra `recipes`")
    tests = Path(__file__).parent / "programs" / "other_device.py"
    code, printed = forked.run(tests, [], tmp_path / "output.txt")
    assert code == 0, printed[-8000:]
    assert "[100%]" in printed
