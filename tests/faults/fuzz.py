"""Feeds every parser spoilt files for a while, each in a process of its own, and prints a table.

    python tests/faults/fuzz.py --seconds 240 --seed 0
    python tests/faults/fuzz.py --only "regions, TSV" --seconds 60 --keep faults/

A fault is an error other than ValueError, OSError or KeyError that names the place, the end of the
process, more than 10 seconds, or more than 2 GB beyond what the process has. Linux only.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from fuzz_outcome import outcome
from fuzz_targets import TARGETS, file_of

os.environ["HF_HUB_OFFLINE"] = "1"


def work(name: str, seconds: float, seed: int, first: int, folder: Path) -> None:
    """Fuzzes one parser, in this process; notes what it does in `folder`."""
    target, place = TARGETS[name], folder / "case"
    fresh = folder / "fresh"
    raw = file_of(target, fresh).read_bytes()
    shutil.copytree(fresh, place, dirs_exist_ok=True)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    found: dict[str, Any] = {"inputs": 0, "read": 0, "refused": 0, "faults": {}, "memory": 0}
    start = noted = time.monotonic()
    number = first
    while time.monotonic() - start < seconds:
        spoilt = target.spoil(raw, random.Random(f"{seed} {name} {number}"))
        (folder / "number").write_text(f"{number} {time.time()}")
        file_of(target, place).write_bytes(spoilt)
        told = outcome(target, place)
        found["inputs"] += 1
        if told in ("read", "refused"):
            found[told] += 1
        else:
            kind, _, more = told.partition(" (")
            if kind not in found["faults"]:
                found["faults"][kind] = f"input {number}: {kind} ({more}"
                (folder / f"fault-{number}").write_bytes(spoilt)
        number += 1
        if number % 50 == 0 or time.monotonic() - noted > 1:
            found["memory"] = max(found["memory"], _memory("VmHWM") - before)
            (folder / f"found-{first}.json").write_text(json.dumps(found))
            noted = time.monotonic()
            if set(os.listdir(place)) != set(os.listdir(fresh)):  # what a parser wrote beside it
                shutil.rmtree(place)
                shutil.copytree(fresh, place)
    found["memory"] = max(found["memory"], _memory("VmHWM") - before)
    (folder / f"found-{first}.json").write_text(json.dumps(found))


def fuzz(name: str, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Fuzzes one parser in processes of its own: when one dies or hangs, another goes on."""
    (folder / "fresh").mkdir(parents=True)
    TARGETS[name].make(folder / "fresh")
    shutil.copytree(folder / "fresh", folder / "case")
    if (told := outcome(TARGETS[name], folder / "case")) != "read":  # and what it imports is loaded
        raise RuntimeError(f"{name}: the valid file is not read: {told}")
    end, first, faults = time.monotonic() + seconds, 0, {}
    while (left := end - time.monotonic()) > 0:
        process = multiprocessing.get_context("fork").Process(
            target=work, args=(name, left, seed, first, folder)
        )
        process.start()
        while process.is_alive():
            process.join(1)
            since = (
                time.time() - (folder / "number").stat().st_mtime
                if first or (folder / "number").exists()
                else 0
            )
            if since > 30 and process.is_alive():
                process.kill()
                process.join()
                end += since  # a hang takes no time from the inputs after it
        if process.exitcode == 0:
            break
        number = int((folder / "number").read_text().split()[0])
        code = process.exitcode or 0
        what = "hang in C" if code == -signal.SIGKILL else f"crash: ended with {code}"
        faults[what] = f"input {number}: {what}"
        first = number + 1
        (folder / "number").touch()
    parts = [json.loads(path.read_text()) for path in folder.glob("found-*.json")]
    for part in parts:
        faults |= part["faults"]
    total = {k: sum(part[k] for part in parts) for k in ("inputs", "read", "refused")}
    return {**total, "faults": faults, "memory": max((p["memory"] for p in parts), default=0)}


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def main() -> None:
    """Fuzzes, prints the table and each fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="parsers with this in their names")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that made a fault")
    args = parser.parse_args()
    shm = Path("/dev/shm")  # a file system in memory, where there is one
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as temporary:
        os.environ["HF_HOME"] = f"{temporary}/hub"
        import datasets

        datasets.disable_progress_bars()
        logging.disable(logging.CRITICAL)  # what libraries say of damaged files, each time
        names = [name for name in TARGETS if (args.only or "") in name]
        print("| parser | inputs | read | refused, named | crashes | hangs | peak memory, MB |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        told, sums = [], [0] * 5
        for place, name in enumerate(names):
            folder = Path(temporary) / str(place)
            found = fuzz(name, args.seconds / len(names), args.seed, folder)
            hangs = sum(fault.startswith("hang") for fault in found["faults"])
            row = [
                found["inputs"],
                found["read"],
                found["refused"],
                len(found["faults"]) - hangs,
                hangs,
            ]
            sums = [a + b for a, b in zip(sums, row, strict=True)]
            library = f" ({TARGETS[name].library})" if TARGETS[name].library else ""
            cells = " | ".join(f"{n:,}" for n in row)
            print(f"| {name}{library} | {cells} | {found['memory'] / 2**20:.0f} |", flush=True)
            told += [f"{name}, {fault}" for fault in found["faults"].values()]
            if args.keep and found["faults"]:
                args.keep.mkdir(parents=True, exist_ok=True)
                for path in folder.glob("fault-*"):
                    shutil.copy(path, args.keep / f"{place}-{path.name}")
        print(f"| all | {' | '.join(f'{n:,}' for n in sums)} | |")
        print("\n".join(told))


if __name__ == "__main__":
    main()
