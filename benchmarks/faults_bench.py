"""A run to disturb, and what its trials share: starting, striking, resuming, comparing it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # imported by the first optimiser: once, not in each trial

from ascl_plugin.data import scenes
from ascl_plugin.training import trainer as loop

OPTIONS = [
    "--scenes_train=12", "--scenes_val=3", "--scenes_test=3", "--epochs=3", "--batch_size=4",
    "--captions_per_epoch=1", "--dim=8", "--encoder_width=8", "--save_every=2", "--log_every=1",
    "--align_epochs=1", "--eval_every=2", "--temperature=0.05", "--eval_batch_size=4",
    "--cpu=True", "--num_threads=1", "--log_with=none",
]  # fmt: skip
STEPS = 9
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


class Lost(Exception):
    """What a trial must not end with."""


def require(fine: bool, why: str) -> None:
    """Ends the trial as lost unless it is fine."""
    if not fine:
        raise Lost(why)


class Child:
    """A forked process; what it prints is in a file.

    Args:
        function: gives its exit status.
        output: file to print to.
    """

    def __init__(self, function: Callable[[], int], output: Path) -> None:
        self.output = output
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            return
        try:
            os.setsid()
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            code = function()
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def ended(self) -> bool:
        """Whether it has; it is still to be waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> tuple[int, str]:
        """Exit status, below 0 that of a signal, and what was printed."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code, self.output.read_text(errors="replace")


class Bench:
    """What trials share: the recipe, the run left alone, a place for folders.

    Args:
        place: made and removed by the caller.
        rng: of the trials.
    """

    def __init__(self, place: Path, rng: random.Random) -> None:
        torch.set_num_threads(1)
        self.place, self.rng = place, rng
        path = Path(__file__).parents[1] / "recipes" / "ascl_coco.py"
        spec: Any = importlib.util.spec_from_file_location("ascl_coco_recipe", path)
        self.recipe = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.recipe)
        # drawn once, and no test split, which is scored after the last checkpoint
        rows = {"train": scenes.make("train", 12, 0), "val": scenes.make("val", 3, 0)}
        self.recipe.load_splits = lambda _: dict(rows)
        self.folder = place / "alone"

        def measured() -> int:
            count = count_file_events(self.folder)
            code = self.recipe.main([*OPTIONS, f"--output_dir={self.folder}"])
            (place / "alone.json").write_text(json.dumps([time.process_time(), count[0]]))
            return code

        code, printed = Child(measured, place / "alone.txt").wait()
        if code:
            raise RuntimeError(printed)
        self.cpu, self.events = json.loads((place / "alone.json").read_text())
        self.alone, self.alone_folder = result(self.folder), self.folder

    def start(self, *more: str, before: Callable[[], Any] | None = None) -> Child:
        """The recipe on the trial's folder."""
        return self.child(lambda: self.run(*more, before=before))

    def run(self, *more: str, before: Callable[[], Any] | None = None) -> int:
        """The same, in this process."""
        save = loop.save_checkpoint

        def told(folder: Path, step: int, *rest: Any) -> Path:
            path = save(folder, step, *rest)
            with open(self.place / "saved", "a") as file:
                file.write(f"{step}\n")
            return path

        loop.save_checkpoint = told  # type: ignore[assignment]
        if before is not None:
            before()
        return self.recipe.main([*OPTIONS, f"--output_dir={self.folder}", *more])

    def child(self, function: Callable[[], int]) -> Child:
        """A trial's own work."""
        return Child(function, self.place / "printed.txt")

    require = staticmethod(require)

    def saved(self) -> int:
        """The last step that `save_checkpoint` came back from."""
        path = self.place / "saved"
        return max(map(int, path.read_text().split()), default=0) if path.exists() else 0

    def logged(self) -> int:
        """The last step in the log."""
        log = self.folder / "log.jsonl"
        text = log.read_text() if log.exists() else ""
        return max(map(int, re.findall(r'"step": (\d+),', text)), default=0)

    def refused(self, outcome: tuple[int, str], *words: str) -> None:
        """One line of error with these words in it."""
        code, printed = outcome
        require(code != 0, f"a damaged or wrong file was taken: {printed[-300:]}")
        # torch may add, after it, that it could not clean up behind a dead worker
        before, _, after = f"\n{printed}".replace("\r", "\n").rpartition("\nerror: ")
        last = after.partition("\n")[0]
        fine = code == 2 and last and "Traceback" not in before
        require(
            bool(fine) and all(word in last for word in words), f"status {code}: {printed[-2000:]}"
        )

    def resumed(self, *more: str) -> str:
        """Goes on to the end; what was saved is not done again, and the weights are right."""
        saved = self.saved()
        code, printed = self.start("--resume", *more).wait()
        require(code == 0, f"resume ended with {code}: {printed[-2000:]}")
        found = re.search(r"resumed from .*checkpoint-0*(\d+), step", printed)
        step = int(found[1]) if found else 0
        require(step >= saved, f"resumed at {step}, {saved} was saved")
        self.compare()
        return f"resumed at step {step}" if step else "begun anew"

    def compare(self, expected: dict[str, Any] | None = None) -> None:
        """The folder holds what that of the run left alone, or `expected`, holds."""
        found = result(self.folder)
        wrong = [name for name, value in (expected or self.alone).items() if found[name] != value]
        require(not wrong, f"{', '.join(wrong)}: not those of a run left alone")
        left = [p.name for p in self.folder.glob(".*") if p.name != ".run.lock"]
        require(not left, f"left behind: {left}")

    def kill(self, number: int = signal.SIGKILL, *more: str) -> tuple[int, str]:
        """Starts a run and sends it a signal after a random time of work, or in place of a random
        operation on its files."""

        def hit(*_: Any) -> None:
            os.killpg(0, number)

        if self.rng.random() < 0.5:
            when = self.rng.uniform(0, self.cpu)
            by_time = None if number == signal.SIGKILL else hit
            return self.start(*more, before=lambda: after(when, by_time)).wait()
        count = self.rng.randint(1, self.events)
        return self.start(*more, before=lambda: count_file_events(self.folder, count, hit)).wait()

    def kill_worker_after(self, seconds: float) -> None:
        """Kills the data workers of this process after so much work, or as soon as it has some."""

        def kill(*_: Any) -> None:
            workers = multiprocessing.active_children()
            for worker in workers:
                worker.kill()
            if not workers:
                signal.setitimer(signal.ITIMER_PROF, 0.003)

        after(seconds, kill)

    def kill_after_saving(self) -> list[Path]:
        """A run killed at a random step with a checkpoint there; its checkpoints."""
        step = self.rng.randint(3, STEPS - 1)

        def before() -> None:
            log = loop.Trainer._log

            def kill_at(trainer: Any, values: dict[str, float]) -> None:
                log(trainer, values)
                if trainer.step >= step:
                    os.kill(os.getpid(), signal.SIGKILL)

            loop.Trainer._log = kill_at  # type: ignore[method-assign]

        code, printed = self.start(before=before).wait()
        require(code == -signal.SIGKILL, f"status {code}: {printed[-1000:]}")
        return loop.checkpoints(self.folder)


class Mounted:
    """A small disk in memory at `path`, for as long as the context lasts."""

    def __init__(self, path: Path, size: str) -> None:
        self.path, self.size = path, size

    def __enter__(self) -> Mounted:
        self.path.mkdir(parents=True, exist_ok=True)
        self._mount("-t", "tmpfs", "-o", f"size={self.size}", "tmpfs")
        return self

    def remount(self, options: str) -> None:
        """With other options, such as `ro`."""
        for _ in range(100):  # a killed process of many threads has files open for a moment
            with suppress(subprocess.CalledProcessError):
                return self._mount("-o", f"remount,{options}")
            time.sleep(0.05)
        self._mount("-o", f"remount,{options}")

    def __exit__(self, *_: Any) -> None:
        subprocess.run(["umount", "-l", self.path], check=True)

    def _mount(self, *options: str) -> None:
        command = ["mount", *options, str(self.path)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def after(seconds: float, hit: Callable[..., Any] | None = None) -> None:
    """`hit` after so much time of this process's work (not of waiting); None: its end, at once."""
    if hit is not None:
        signal.signal(signal.SIGPROF, hit)
    # SIGPROF left alone ends the process as SIGKILL does: at once, whatever it is doing
    signal.setitimer(signal.ITIMER_PROF, max(seconds, 0.001))


def count_file_events(
    folder: Path, last: int = 0, hit: Callable[[], Any] | None = None
) -> list[int]:
    """Counts operations on files in the folder; before the `last` one, `hit`."""
    count, name = [0], str(folder)

    def hook(event: str, args: Any) -> None:
        if event in FILE_EVENTS and str(args[0]).startswith(name):
            count[0] += 1
            if count[0] == last and hit is not None:
                hit()

    sys.addaudithook(hook)
    return count


def file_hash(folder: Path) -> str:
    """SHA-256 of the weights in a folder."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def result(folder: Path) -> dict[str, Any]:
    """What a finished run is compared by: hashes of weights, and metrics."""
    metrics = json.loads((folder / "metrics.json").read_text())
    weights = {name: file_hash(folder / name) for name in ("best", f"checkpoint-{STEPS:07d}")}
    return {**weights, "metrics.json": {k: metrics[k] for k in ("val", "best")}}


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
