"""Runs that are killed, starved of disk, damaged and disturbed at random, and what is left of them.

    python benchmarks/faults.py --trials 204 --seed 0 --jobs 2

Each trial forks the recipe on a handful of drawn scenes, does one thing to it, resumes it, and
compares the weights at the end with those of a run left alone, byte for byte. It fails, and says
why, when a damaged file was loaded, when a step older than the last checkpoint was done again, when
the weights differ, or when the message is more than a line or does not name the path. As root a
full and a read-only disk are small ones mounted for the trial; else their trials are left out.
Needs fork, /proc and POSIX locks: Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # imported by the first optimiser: once, not in each trial
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
from faults_files import conversion, feature_cache, score_file

from ascl_plugin.data import scenes
from ascl_plugin.training import loop

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
            os.setpgid(0, 0)
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
            count = _count_file_events(self.folder)
            code = self.recipe.main([*OPTIONS, f"--output_dir={self.folder}"])
            (place / "alone.json").write_text(json.dumps([time.process_time(), count[0]]))
            return code

        code, printed = Child(measured, place / "alone.txt").wait()
        if code:
            raise RuntimeError(printed)
        self.cpu, self.events = json.loads((place / "alone.json").read_text())
        self.alone, self.alone_folder = _result(self.folder), self.folder

    def start(self, *more: str, before: Callable[[], Any] | None = None) -> Child:
        """The recipe on the trial's folder."""

        def run() -> int:
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

        return Child(run, self.place / "printed.txt")

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

    def compare(self) -> None:
        """The folder holds what that of the run left alone holds."""
        result = _result(self.folder)
        wrong = [name for name, value in self.alone.items() if result[name] != value]
        require(not wrong, f"{', '.join(wrong)}: not those of a run left alone")
        left = [p.name for p in self.folder.glob(".*") if p.name != ".run.lock"]
        require(not left, f"left behind: {left}")

    def kill(self, number: int = signal.SIGKILL, *more: str) -> tuple[int, str]:
        """Starts a run and sends it a signal after a random time of work, or in place of a random
        operation on its files."""
        if self.rng.random() < 0.5:
            when = self.rng.uniform(0, self.cpu)
            return self.start(*more, before=lambda: _after(when, number)).wait()
        count = self.rng.randint(1, self.events)
        return self.start(
            *more, before=lambda: _count_file_events(self.folder, count, number)
        ).wait()

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


def killed(bench: Bench) -> str:
    """SIGKILL, with and without a data worker."""
    code, _ = bench.kill(signal.SIGKILL, *bench.rng.choice([[], ["--num_workers=1"]]))
    return bench.resumed() if code else "had ended"


def stopped(number: int, *more: str) -> Callable[[Bench], str]:
    """A signal that asks, to the run and all its workers."""

    def trial(bench: Bench) -> str:
        code, printed = bench.kill(number, *more)
        if code == 0:
            return "had ended"
        in_time = code == 128 + number and "--resume" in printed
        at_once = code == -number and number == signal.SIGTERM  # no step was under way
        require((in_time or at_once) and "Traceback" not in printed, f"{code}: {printed[-2000:]}")
        if "stopped by signal" in printed:
            saved, logged = bench.saved(), bench.logged()
            require(saved == logged, f"step {logged} was done, {saved} saved")
        return bench.resumed()

    return trial


def worker_killed(bench: Bench) -> str:
    """As by the kernel when memory is short."""
    when = bench.rng.uniform(0.3, 1) * bench.cpu

    def kill_worker(*_: Any) -> None:
        import multiprocessing

        workers = multiprocessing.active_children()
        for worker in workers:
            worker.kill()
        if not workers:
            signal.setitimer(signal.ITIMER_PROF, 0.003)

    def before() -> None:
        signal.signal(signal.SIGPROF, kill_worker)
        signal.setitimer(signal.ITIMER_PROF, when)

    outcome = bench.start("--num_workers=1", before=before).wait()
    if outcome[0] == 0:
        bench.compare()
        return "it had done its work"
    bench.refused(outcome, "DataLoader worker", str(bench.folder), "--resume")
    return bench.resumed()


def disk_full(bench: Bench) -> str:
    """A disk with too little room for the run, then with enough."""
    room = bench.rng.randint(8, _size(bench.alone_folder) // 1024)
    with _Mounted(bench.folder, f"{room}k") as disk:
        outcome = bench.start().wait()
        if outcome[0] == 0:
            return "there was room"
        bench.refused(outcome, str(bench.folder), "--resume")
        disk.remount("size=64m")
        return bench.resumed()


def file_too_large(bench: Bench) -> str:
    """A limit on the size of files (ulimit -f), then none."""
    sizes = sorted(p.stat().st_size for p in (bench.alone_folder).rglob("*") if p.is_file())
    limit = bench.rng.randint(16_000, sizes[-1])
    limits = (limit, resource.RLIM_INFINITY)
    outcome = bench.start(before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)).wait()
    bench.refused(outcome, str(bench.folder), "--resume")
    return bench.resumed()


def read_only(bench: Bench) -> str:
    """Begun, killed, resumed on a disk that is read-only by now, then on one that is not."""
    with _Mounted(bench.folder, "64m") as disk:
        bench.kill()
        disk.remount("ro")
        bench.refused(bench.start("--resume").wait(), str(bench.folder), "Read-only")
        disk.remount("rw")
        return bench.resumed()


def cut_checkpoint(bench: Bench) -> str:
    """A file of the last checkpoint ends early."""
    last = bench.kill_after_saving()[-1]
    file = bench.rng.choice([p for p in last.iterdir() if p.stat().st_size])
    os.truncate(file, bench.rng.randrange(file.stat().st_size))
    return _after_damage(bench, last)


def flipped_checkpoint(bench: Bench) -> str:
    """A bit of the last checkpoint is another."""
    last = bench.kill_after_saving()[-1]
    _flip(bench.rng.choice(list(last.iterdir())), bench.rng)
    return _after_damage(bench, last)


def damaged_best(bench: Bench) -> str:
    """The best model so far is cut or has a flipped bit; its run goes on without it."""
    bench.kill_after_saving()
    best = bench.folder / "best"
    if not best.exists():
        return bench.resumed()
    file = best / bench.rng.choice(["model.safetensors", "config.json", "SHA256SUMS"])
    if bench.rng.random() < 0.5:
        _flip(file, bench.rng)
    else:
        os.truncate(file, bench.rng.randrange(file.stat().st_size))
    bench.refused(bench.start("--resume").wait(), str(best), "delete this folder")
    shutil.rmtree(best)
    code, printed = bench.start("--resume").wait()
    require(code == 0 and "best is gone" in printed, f"{code}: {printed[-1000:]}")
    last = f"checkpoint-{STEPS:07d}"
    require(_hash(bench.folder / last) == bench.alone[last], "weights differ")
    return "refused; deleted; the next validation made another"


def other_configuration(bench: Bench) -> str:
    """Resumed with an option that changes what a step does."""
    bench.kill_after_saving()
    before = _all_files(bench.folder)
    option = bench.rng.choice(
        ["--temperature=0.1", "--dim=16", "--seed=1", "--epochs=5", "--batch_size=3"]
    )
    name = option[2:].partition("=")[0]
    outcome = bench.start("--resume", option).wait()
    bench.refused(outcome, str(bench.folder), f"was written with {name}=", "output_dir")
    now = _all_files(bench.folder)
    require({k: now.get(k) for k in before} == before, "the folder was changed")
    return f"refused; {bench.resumed()}"


def two_runs(bench: Bench) -> str:
    """A second run into the folder of one at work."""
    first = bench.start()
    lock = bench.folder / ".run.lock"
    while not (lock.exists() and lock.stat().st_size):
        time.sleep(0.002)
    time.sleep(bench.rng.uniform(0, bench.cpu))
    more = bench.rng.choice([[], ["--resume"]])
    argv = [*OPTIONS, f"--output_dir={bench.folder}", *more]
    code, printed = Child(lambda: bench.recipe.main(argv), bench.place / "second.txt").wait()
    ended = first.wait()
    require(ended[0] == 0, f"the first ended with {ended[0]}: {ended[1][-1000:]}")
    bench.compare()
    if code == 0 and more:
        return "the first had ended"
    words = f"{bench.folder} is in use by process {first.pid} on" if more else str(bench.folder)
    bench.refused((code, printed), words)
    return "the second refused, the first untouched"


def clock_jumps(bench: Bench) -> str:
    """Killed; files and clock are then of another time."""
    code, _ = bench.kill()
    real = time.time
    for path in bench.folder.rglob("*"):
        then = real() + bench.rng.uniform(-1e9, 1e9)
        os.utime(path, (then, then))
    shift = bench.rng.uniform(-1e9, 1e9)
    time.time = lambda: real() + shift * (int(real() * 50) % 2)
    try:
        return bench.resumed() if code else "had ended"
    finally:
        time.time = real


FAULTS: dict[str, Callable[[Bench], str]] = {
    "SIGKILL": killed,
    "SIGTERM": stopped(signal.SIGTERM),
    "SIGTERM, data workers too": stopped(signal.SIGTERM, "--num_workers=1"),
    "Ctrl-C": stopped(signal.SIGINT),
    "a data worker is killed": worker_killed,
    "the disk is full": disk_full,
    "a file is larger than allowed": file_too_large,
    "the folder is read-only": read_only,
    "a checkpoint is cut short": cut_checkpoint,
    "a bit of a checkpoint flips": flipped_checkpoint,
    "`best/` is damaged": damaged_best,
    "a checkpoint of other options": other_configuration,
    "two runs in one folder": two_runs,
    "the clock jumps": clock_jumps,
    "feature cache: killed, cut, flipped": feature_cache,
    "scores on disk: killed, cut": score_file,
    "converting regions: killed, cut": conversion,
}
MOUNTS = ("the disk is full", "the folder is read-only")


def trial(bench: Bench, fault: str) -> str:
    """One; how it went.

    Raises:
        Lost: not as promised.
    """
    bench.folder = bench.place / "run"
    shutil.rmtree(bench.folder, ignore_errors=True)
    (bench.place / "saved").unlink(missing_ok=True)
    return FAULTS[fault](bench)


def can_mount(place: Path) -> bool:
    """Whether a small disk can be mounted here."""
    try:
        with _Mounted(place / "mounted", "64k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def main() -> int:
    """Prints the table; the exit status is 1 if anything was lost."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--trials", type=int, default=204)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--jobs", type=int, default=1, help="trials at the same time")
    words.add_argument("--only", help="one fault, by its name")
    args = words.parse_args()
    place = Path(tempfile.mkdtemp(prefix="faults"))
    log = place / "outcomes"
    log.touch()
    try:
        bench = Bench(place, random.Random(args.seed))
        mountable = can_mount(place)
        names = [args.only] if args.only else [f for f in FAULTS if mountable or f not in MOUNTS]
        numbers = range(args.trials)
        jobs = [
            Child(
                partial(_trials, bench, names, numbers[i :: args.jobs], args.seed, log),
                place / f"job{i}.txt",
            )
            for i in range(args.jobs)
        ]
        with tqdm(total=args.trials, desc="faults", unit="trial") as bar:
            while bar.n < args.trials and not all(job.ended() for job in jobs):
                time.sleep(0.5)
                bar.update(len(log.read_text().splitlines()) - bar.n)
        ended = [job.wait() for job in jobs]
        rows = [json.loads(line) for line in log.read_text().splitlines()]
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for code, printed in ended:
        if code:
            print(printed, file=sys.stderr)
    print("| fault | trials | survived | lost | how |\n| --- | ---: | ---: | ---: | --- |")
    for fault in names:
        mine = [(fine, told) for name, fine, told in rows if name == fault]
        fine = sum(fine for fine, _ in mine)
        how = Counter(told for fine, told in mine if fine).most_common()
        told = "; ".join(f"{count} {told}" for told, count in how)
        print(f"| {fault} | {len(mine)} | {fine} | {len(mine) - fine} | {told} |")
    lost = [f"{name}: {told}" for name, fine, told in rows if not fine]
    print(f"| all | {len(rows)} | {len(rows) - len(lost)} | {len(lost)} | |")
    print("\n".join(lost), file=sys.stderr)
    return int(bool(lost) or len(rows) < args.trials)


def _trials(bench: Bench, names: list[str], numbers: Sequence[int], seed: int, log: Path) -> int:
    """Trials of these numbers, in a place of their own; a line of JSON for each."""
    bench.place = bench.place / f"place{numbers[0]}"
    bench.place.mkdir()
    for number in numbers:
        fault = names[number % len(names)]
        bench.rng = random.Random(f"{seed} {number}")
        try:
            line = [fault, True, re.sub(r" at step \d+", "", trial(bench, fault))]
        except Lost as why:
            line = [fault, False, f"trial {number}: {why}"]
        with open(log, "a") as file:
            file.write(json.dumps(line) + "\n")
    return 0


class _Mounted:
    """A small disk in memory at `path`, for as long as the context lasts."""

    def __init__(self, path: Path, size: str) -> None:
        self.path, self.size = path, size

    def __enter__(self) -> _Mounted:
        self.path.mkdir(parents=True, exist_ok=True)
        self._mount("-t", "tmpfs", "-o", f"size={self.size}", "tmpfs")
        return self

    def remount(self, options: str) -> None:
        self._mount("-o", f"remount,{options}")

    def __exit__(self, *_: Any) -> None:
        subprocess.run(["umount", "-l", self.path], check=True)

    def _mount(self, *options: str) -> None:
        command = ["mount", *options, str(self.path)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def _after_damage(bench: Bench, last: Path) -> str:
    bench.refused(bench.start("--resume").wait(), str(last), "delete this folder")
    shutil.rmtree(last)
    before = loop.checkpoints(bench.folder)  # the damage took what was saved since
    (bench.place / "saved").write_text(before[-1].name[len("checkpoint-") :] if before else "0")
    return f"refused; deleted; {bench.resumed()}"


def _after(seconds: float, number: int) -> None:
    """A signal to this process and its workers after so much time of work (not of waiting)."""
    if number != signal.SIGKILL:
        signal.signal(signal.SIGPROF, lambda *_: os.killpg(0, number))
    # SIGPROF left alone ends the process as SIGKILL does: at once, whatever it is doing
    signal.setitimer(signal.ITIMER_PROF, max(seconds, 0.001))


def _count_file_events(folder: Path, last: int = 0, number: int = 0) -> list[int]:
    """Counts operations on files in the folder; before the `last` one, the signal."""
    count, name = [0], str(folder)

    def hook(event: str, args: Any) -> None:
        if event in FILE_EVENTS and str(args[0]).startswith(name):
            count[0] += 1
            if count[0] == last:
                os.killpg(0, number)

    sys.addaudithook(hook)
    return count


def _flip(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def _hash(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def _result(folder: Path) -> dict[str, Any]:
    metrics = json.loads((folder / "metrics.json").read_text())
    weights = {name: _hash(folder / name) for name in ("best", f"checkpoint-{STEPS:07d}")}
    return {**weights, "metrics.json": {k: metrics[k] for k in ("val", "best")}}


def _all_files(folder: Path) -> dict[str, bytes]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != ".run.lock"]
    return {str(p): p.read_bytes() for p in files if p.name != "log.jsonl"}


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


if __name__ == "__main__":
    sys.exit(main())
