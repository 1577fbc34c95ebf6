"""Trials of `faults.py` on a run of one process: signals, disks, damage, other runs, clocks."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from faults_bench import OPTIONS, STEPS, Bench, Child, Mounted, file_hash, require, size

from ascl_plugin.training import trainer as loop


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

    outcome = bench.start("--num_workers=1", before=lambda: bench.kill_worker_after(when)).wait()
    if outcome[0] == 0:
        bench.compare()
        return "it had done its work"
    bench.refused(outcome, "DataLoader worker", str(bench.folder), "--resume")
    return bench.resumed()


def disk_full(bench: Bench) -> str:
    """A disk with too little room for the run, then with enough."""
    room = bench.rng.randint(8, size(bench.alone_folder) // 1024)
    with Mounted(bench.folder, f"{room}k") as disk:
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
    with Mounted(bench.folder, "64m") as disk:
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
    require(file_hash(bench.folder / last) == bench.alone[last], "weights differ")
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


def _after_damage(bench: Bench, last: Path) -> str:
    bench.refused(bench.start("--resume").wait(), str(last), "delete this folder")
    shutil.rmtree(last)
    before = loop.checkpoints(bench.folder)  # the damage took what was saved since
    (bench.place / "saved").write_text(before[-1].name[len("checkpoint-") :] if before else "0")
    return f"refused; deleted; {bench.resumed()}"


def _flip(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def _all_files(folder: Path) -> dict[str, bytes]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != ".run.lock"]
    return {str(p): p.read_bytes() for p in files if p.name != "log.jsonl"}


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
}
