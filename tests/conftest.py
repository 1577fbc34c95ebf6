"""What tests of several processes share."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import torch


@pytest.fixture(scope="session")
def run_ranks():
    """A function that runs a program once a rank and loads the `OUT/RANK.pt` that it writes.

    `FILE RANK PORT OUT WORLD`: a program of its own, because a fork would inherit threads.
    """

    def run(program, out, world=2, timeout=300):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, program]
        numbers = [list(map(str, (rank, port, out, world))) for rank in range(world)]
        ranks = [subprocess.Popen([*command, *arguments]) for arguments in numbers]
        try:
            assert [process.wait(timeout=timeout) for process in ranks] == [0] * world
        finally:
            for process in ranks:
                process.kill()
        return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(world)]

    return run
