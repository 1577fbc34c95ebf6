"""Runs that are killed, starved of disk, damaged and disturbed at random, and what is left of them.

    python benchmarks/faults.py --trials 372 --seed 0 --jobs 2

Each trial forks the recipe on a handful of drawn scenes, as one process or as two, does one thing
to it, resumes it, and compares the weights at the end with those of a run left alone, byte for
byte. It fails, and says why, when a damaged file was loaded, when a step older than the last
checkpoint was done again, when the weights differ, when a process does not end, or when the message
is more than a line or does not name the path. As root a full and a read-only disk are small ones
mounted for the trial; else their trials are left out. Needs fork, /proc and POSIX locks: Linux.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
import faults_ranks
import faults_run
from faults_bench import Bench, Child, Lost, Mounted
from faults_files import conversion, feature_cache, score_file

FAULTS: dict[str, Callable[[Bench], str]] = {
    **faults_run.FAULTS,
    "feature cache: killed, cut, flipped": feature_cache,
    "scores on disk: killed, cut": score_file,
    "converting regions: killed, cut": conversion,
    **faults_ranks.FAULTS,
}
MOUNTED = ("the disk is full", "the folder is read-only")


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
        with Mounted(place / "mounted", "64k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def main() -> int:
    """Prints the table; the exit status is 1 if anything was lost."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--trials", type=int, default=372)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--jobs", type=int, default=1, help="trials at the same time")
    words.add_argument("--only", nargs="+", default=[""], help="parts of names of faults")
    args = words.parse_args()
    place = Path(tempfile.mkdtemp(prefix="faults"))
    log = place / "outcomes"
    log.touch()
    try:
        bench = Bench(place, random.Random(args.seed))
        mountable = can_mount(place)
        names = [
            name
            for name in FAULTS
            if any(part in name for part in args.only)
            and (mountable or not any(part in name for part in MOUNTED))
        ]
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


if __name__ == "__main__":
    sys.exit(main())
