"""What tests of several processes share."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import torch


@pytest.fixture(scope="session")
def run_ranks():
    """A function that runs a program once a rank, `FILE RANK PORT OUT`, and loads `OUT/RANK.pt`.

    A program of its own, because a fork would inherit threads.
    """

    def run(program, out, world=2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, program]
        ranks = [subprocess.Popen([*command, str(r), str(port), str(out)]) for r in range(world)]
        try:
            assert [process.wait(timeout=120) for process in ranks] == [0] * world
        finally:
            for process in ranks:
                process.kill()
        return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(world)]

    return run
