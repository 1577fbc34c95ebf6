"""One run a folder; who holds it is said; a kill frees it, also with a worker left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("fcntl", reason="not on Windows")
from ascl_plugin.training.lock import LOCK, locked

# holds the lock with a forked child at its side, as a data worker is
HOLDER = """
import os, sys, time
from pathlib import Path
from ascl_plugin.training.lock import locked
with locked(Path(sys.argv[1])):
    worker = os.fork()
    if worker:
        print(worker, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    worker = int(process.stdout.readline())
    yield process
    process.kill()
    os.kill(worker, 9)
    process.wait()


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path, holder):
    with pytest.raises(FileExistsError) as told, locked(tmp_path):
        pass
    assert f"{tmp_path} is in use by process {holder.pid} on {socket.gethostname()}" in str(
        told.value
    )


def test_a_kill_frees_the_folder_though_a_worker_is_left(tmp_path, holder):
    holder.kill()
    holder.wait()
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_after_the_run_the_folder_is_free(tmp_path):
    for _ in range(2):
        with locked(tmp_path):
            time.sleep(0)
