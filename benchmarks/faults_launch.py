"""Two processes under `accelerate launch`: started, struck, resumed, compared.

The launcher is Accelerate's and torch's own; where it would start a program it forks instead, which
spares each process its imports. The program itself is launched in tests/recipes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate.commands.launch
import torch.distributed.run
from faults_bench import OPTIONS, STEPS, Bench, Child, after, count_file_events, require, result
from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import (
    SubprocessHandler,
)

from ascl_plugin.training import loop
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
                raise torch.distributed.run.subprocess.TimeoutExpired("rank", timeout)
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


class Ranks:
    """Two processes on the trial's folder of a bench.

    Args:
        bench: of the trials.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.references: dict[tuple[int, int], dict[str, Any]] = {}

    def measure(self) -> None:
        """Runs them once, left alone: the result, seconds of work, operations on files."""
        cost = self.bench.place / "cost"

        def measured(rank: int) -> None:
            if rank:
                return
            count = count_file_events(self.bench.folder)
            end = self.bench.recipe.main

            def told(argv: list[str]) -> int:
                code = end(argv)
                cost.write_text(f"{time.process_time()} {count[0]}")
                return code

            self.bench.recipe.main = told

        self.bench.folder = self.bench.place / "alone of two"
        outcome = self.ended(self.start(before=measured))
        require(outcome.codes == [0, 0], str(outcome))
        seconds, events = cost.read_text().split()
        self.cpu, self.events = float(seconds), int(events)
        self.alone = result(self.bench.folder)

    def start(self, *more: str, before: Callable[[int], Any] | None = None) -> Child:
        """The recipe on the trial's folder; `before` is called in each process."""
        place, bench = self.place, self.bench
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()

        def rank(handler: Any, args: tuple[str, ...], env: dict[str, str]) -> Rank:
            number = int(env["RANK"])

            def run() -> int:
                _as_if_new(env)
                (place / f"{number}.pid").write_text(str(os.getpid()))
                _note_fit(place / f"{number}.fit")
                code = bench.run(*more, before=lambda: before and before(number))
                (place / f"{number}.code").write_text(str(code))
                return code

            return Rank(run, place / f"{number}.txt")

        def launch() -> int:
            SubprocessHandler._popen = rank
            config = Path(__file__).parents[1] / "recipes" / "accelerate" / "ddp_cpu.yaml"
            command = ["--config_file", str(config), bench.recipe.__file__, *OPTIONS, *more]
            launcher = accelerate.commands.launch
            launcher.launch_command(launcher.launch_command_parser().parse_args(command))
            return 0

        return Child(launch, place / "launcher.txt")

    def strike(
        self, number: int, targets: str, *more: str, at: str = "random"
    ) -> tuple[Outcome, int]:
        """Starts a run and sends a signal to some of it, after a random time of work of one
        process or in place of a random operation of the first on its files.

        Args:
            number: of the signal.
            targets: `"0"`, `"1"`, `"launcher"`, or `"all"`, with data workers.
            more: options.
            at: `"time"` for no operation on files.
        """
        rng = self.bench.rng
        watched = rng.randint(0, 1)
        when = rng.uniform(0, self.cpu)
        event = rng.randint(1, self.events)
        by_time = at == "time" or rng.random() < 0.5

        def hit(*_: Any) -> None:
            launcher = os.getppid()
            here = [self.pid(rank) for rank in (0, 1)]
            in_fit = sum((self.place / f"{rank}.fit").exists() for rank in (0, 1))
            (self.place / "struck").write_text(str(in_fit))
            if targets == "launcher":
                os.kill(launcher, number)
            elif targets == "all":
                os.kill(launcher, number)
                # itself last
                for pid in sorted(filter(None, here), key=lambda pid: pid == os.getpid()):
                    os.killpg(pid, number)
            elif pid := here[int(targets)]:
                os.kill(pid, number)

        def before(rank: int) -> None:
            if by_time and rank == watched:
                after(when, hit)
            elif not by_time and rank == 0:
                count_file_events(self.bench.folder, event, hit)

        return self.ended(self.start(*more, before=before)), watched

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

    def resumed(self, first: int = 2, then: int | None = None) -> str:
        """Goes on with `then` processes (drawn, if None) to the end, which is as it should be.

        With the same number as at `first`: that of a run left alone. With another: that of a run
        which nobody disturbed and which changed its number at the same step.
        """
        bench = self.bench
        then = then or bench.rng.choice([2, 1])
        saved = bench.saved()
        step = self._go_on(then)
        require(step >= saved, f"resumed at {step}, {saved} was saved")
        bench.compare(self.expected(first, step, then))
        return (f"resumed by {then}" if step else f"begun anew by {then}") + f" at step {step}"

    def expected(self, first: int, step: int, then: int) -> dict[str, Any]:
        """The result of a run of `first` processes that `then` go on with after `step`."""
        if step == 0 or first == then:
            return self.bench.alone if then == 1 else self.alone
        if (first, step) not in self.references:
            self._make_references(first, then)
        return self.references[first, step]

    def _make_references(self, first: int, then: int) -> None:
        """Keeps the folder at each step of an undisturbed run, and goes on from there."""
        bench, folder = self.bench, self.bench.folder
        bench.folder = bench.place / f"of {first}"

        def keep_each(_: int = 0) -> None:
            save = loop.save_checkpoint

            def kept(where: Path, step: int, *rest: Any) -> Path:
                path = save(where, step, *rest)
                shutil.copytree(where, bench.place / f"of {first} at {step}", dirs_exist_ok=True)
                return path

            loop.save_checkpoint = kept  # type: ignore[assignment]

        if first == 2:
            outcome = self.ended(self.start("--save_every=1", before=keep_each))
            require(outcome.codes == [0, 0], str(outcome))
        else:
            code, printed = bench.start("--save_every=1", before=keep_each).wait()
            require(code == 0, printed)
        for step in range(1, STEPS + 1):
            bench.folder = bench.place / f"of {first} at {step}"
            require(self._go_on(then) == step, "a reference does not go on from its step")
            self.references[first, step] = result(bench.folder)
            shutil.rmtree(bench.folder)
        shutil.rmtree(bench.place / f"of {first}")
        bench.folder = folder

    def _go_on(self, then: int) -> int:
        """To the end; from which step."""
        if then == 1:
            code, printed = self.bench.start("--resume").wait()
            require(code == 0, f"resume ended with {code}: {printed[-2000:]}")
        else:
            outcome = self.ended(self.start("--resume"))
            require(outcome.codes == [0, 0], f"resume: {outcome}")
            printed = outcome.printed[0]
        found = re.search(r"resumed from .*checkpoint-0*(\d+), step", printed)
        return int(found[1]) if found else 0

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
