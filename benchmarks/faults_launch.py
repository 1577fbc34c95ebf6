"""Two processes under `accelerate launch`: started, watched, outlived.

The launcher is Accelerate's and torch's own; where it would start a program it forks instead, which
spares each process its imports. The program itself is launched in tests/recipes.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate.commands.launch
from faults_bench import OPTIONS, Bench, Child, require
from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import (
    SubprocessHandler,
)

from ascl_plugin.training.signals import StopSignal

WITHIN = 60  # seconds in which all must have ended: the launcher gives its processes 30
LAUNCHER_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


class Rank(Child):
    """A process of the run, as the launcher sees one it started (`subprocess.Popen`)."""

    returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = WITHIN) -> Any:
        """Until it has ended, or so many seconds."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("rank", timeout)
            time.sleep(0.01)
        return self.returncode


@dataclass
class Outcome:
    """What is left of a launched run.

    Attributes:
        codes: exit status of each process; None: a signal ended it.
        printed: by each process; `launcher` by the launcher.
        struck_in_fit: processes that were in the training loop at the strike.
    """

    launcher: tuple[int, str]
    codes: list[int | None]
    printed: list[str]
    struck_in_fit: int

    def __str__(self) -> str:
        said = "\n".join(f"--- {rank}:\n{text[-1500:]}" for rank, text in enumerate(self.printed))
        return (
            f"{self.codes}, {self.struck_in_fit} in the loop, launcher {self.launcher[0]}\n{said}"
        )


class Launch:
    """Two processes on the trial's folder of a bench.

    Args:
        bench: of the trials.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def start(self, *more: str, before: Callable[[int], Any] | None = None) -> Child:
        """The recipe on the trial's folder; `before` is called in each process."""
        place, bench = self.place, self.bench
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()

        def rank(handler: Any, args: tuple[str, ...], env: dict[str, str]) -> Rank:
            number = int(env["RANK"])

            def run() -> int:
                _as_if_new(env)
                _note_fit(place / f"{number}.fit")
                code = bench.run(*more, before=lambda: before and before(number))
                (place / f"{number}.code").write_text(str(code))
                return code

            started = Rank(run, place / f"{number}.txt")
            (place / f"{number}.pid").write_text(str(started.pid))
            return started

        def launch() -> int:
            SubprocessHandler._popen = rank
            config = Path(__file__).parents[1] / "recipes" / "accelerate" / "ddp_cpu.yaml"
            command = ["--config_file", str(config), bench.recipe.__file__, *OPTIONS, *more]
            launcher = accelerate.commands.launch
            launcher.launch_command(launcher.launch_command_parser().parse_args(command))
            return 0

        return Child(launch, place / "launcher.txt")

    def ended(self, launcher: Child) -> Outcome:
        """Waits for the launcher, the processes and their workers.

        Raises:
            Lost: some are still there after a minute.
        """
        end = time.monotonic() + WITHIN
        try:
            while not launcher.ended() or _alive(self.sessions()):
                require(time.monotonic() < end, f"still there after {WITHIN} s: {self.sessions()}")
                time.sleep(0.02)
        finally:
            if not launcher.ended():
                os.killpg(launcher.pid, signal.SIGKILL)
            for session in _alive(self.sessions()):
                os.killpg(session, signal.SIGKILL)
            told = launcher.wait()
        codes = [self._read(f"{rank}.code") for rank in (0, 1)]
        return Outcome(
            told,
            [int(code) if code else None for code in codes],
            [self._read(f"{rank}.txt") for rank in (0, 1)],
            int(self._read("struck") or 0),
        )

    @property
    def place(self) -> Path:
        """What the processes note."""
        return self.bench.place / "ranks"

    def pid(self, rank: int) -> int | None:
        """Of a process that has begun."""
        return int(self._read(f"{rank}.pid") or 0) or None

    def sessions(self) -> list[int]:
        """Of the processes: each has one of its own, with its data workers."""
        return [pid for pid in (self.pid(0), self.pid(1)) if pid]

    def _read(self, name: str) -> str:
        path = self.place / name
        return path.read_text(errors="replace") if path.exists() else ""


def _as_if_new(env: dict[str, str]) -> None:
    """Environment, signals and sockets as of a program that was started."""
    os.environ.clear()
    os.environ.update(env)
    for name in LAUNCHER_SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                os.close(int(name))
        except OSError:  # that of the listing itself
            continue
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _note_fit(path: Path) -> None:
    """A file that is there while the process is in the training loop."""
    awaited = StopSignal.awaited

    def noted(stop: StopSignal) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def context() -> Any:
            with awaited(stop):
                path.touch()
                try:
                    yield
                finally:
                    path.unlink()

        return context()

    StopSignal.awaited = noted  # type: ignore[method-assign]


def _alive(sessions: list[int]) -> list[int]:
    """Those sessions in which a process runs."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(") ")[2].split()[:4]
        except OSError:  # it ended
            continue
        if state != "Z" and int(session) in sessions:
            found.add(int(session))
    return sorted(found)
