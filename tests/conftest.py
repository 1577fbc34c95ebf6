"""What tests share: runs of several processes, tar files of pairs."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import tarfile

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


@pytest.fixture(scope="session")
def write_tar():
    """A function that writes a tar file in webdataset's layout."""

    def write(path, samples):
        """samples: key -> {extension: bytes}."""
        with tarfile.open(path, "w") as tar:
            for key, files in samples.items():
                for extension, data in files.items():
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))

    return write


@pytest.fixture(scope="session")
def png():
    """A function that gives a small picture of one red, 0 to 255, as bytes."""
    from PIL import Image

    def draw(number):
        file = io.BytesIO()
        Image.new("RGB", (40, 30), (number, 0, 0)).save(file, "PNG")
        return file.getvalue()

    return draw
