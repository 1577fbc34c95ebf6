"""Feeds parsers what reaches new lines of them, by libFuzzer, and prints a table.

    pip install atheris
    python tests/faults/fuzz_guided.py --seconds 60 --seed 1
    python tests/faults/fuzz_guided.py "regions, TSV" "study, yaml" --seconds 600 --keep faults/

Without names: every parser whose code is ours or Python's. Each has a process of its own. What a
fault is: see `fuzz.py`. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SEEDS = 50  # spoilt files to begin with, beside the valid one
STILL = 60  # seconds without a new input after which a parser hangs where no signal reaches it


def work(name: str, seconds: int, seed: int, folder: Path) -> None:
    """Fuzzes one parser, in this process; notes each second what came of it in `folder`."""
    import atheris

    atheris.enabled_hooks.add("str")
    with atheris.instrument_imports(include=["ascl_plugin", "yaml"]):
        from fuzz_outcome import outcome
        from fuzz_targets import TARGETS, file_of

        target, place, corpus = TARGETS[name], folder / "case", folder / "corpus"
        for path in (place, corpus):
            path.mkdir()
        target.make(place)
        if (told := outcome(target, place)) != "read":  # and what it imports is loaded
            raise RuntimeError(f"{name}: the valid file is not read: {told}")
    path = file_of(target, place)
    raw = path.read_bytes()
    (corpus / "valid").write_bytes(raw)
    for number in range(SEEDS):
        spoilt = target.spoil(raw, random.Random(f"{seed} {name} {number}"))
        (corpus / str(number)).write_bytes(spoilt)
    found: dict[str, Any] = {"inputs": 0, "read": 0, "refused": 0, "faults": {}}
    noted = time.monotonic()

    def once(data: bytes) -> None:
        nonlocal noted
        path.write_bytes(data)
        told = outcome(target, place)
        found["inputs"] += 1
        if told in ("read", "refused"):
            found[told] += 1
        elif (kind := told.partition(" (")[0]) not in found["faults"]:
            (folder / f"fault-{len(found['faults'])}").write_bytes(data)
            found["faults"][kind] = told
        if time.monotonic() - noted > 1:
            (folder / "found.json").write_text(json.dumps(found))
            noted = time.monotonic()

    # the limit of time is `outcome`'s; what libFuzzer would set takes its signal away
    flags = [f"-max_total_time={seconds}", f"-seed={seed}", "-timeout=0", "-max_len=8192"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], once)
    atheris.Fuzz()


def fuzz(name: str, seconds: int, seed: int, folder: Path) -> dict[str, Any]:
    """Fuzzes one parser in a process of its own."""
    folder.mkdir()
    command = [sys.executable, __file__, name, f"--seconds={seconds}", f"--seed={seed}"]
    result = folder / "found.json"
    with open(folder / "said.txt", "w") as said:
        process = subprocess.Popen([*command, f"--work={folder}"], stdout=said, stderr=said)
        while process.poll() is None:
            time.sleep(1)
            if result.exists() and time.time() - result.stat().st_mtime > STILL:
                process.kill()
    said_last = (folder / "said.txt").read_text(errors="replace")[-2000:]
    if not result.exists():
        raise RuntimeError(f"{name}: {said_last}")
    found: dict[str, Any] = json.loads(result.read_text())
    if process.returncode:
        what = "hang in C" if process.returncode == -9 else f"crash: ended, {process.returncode}"
        found["faults"][what] = f"{what} {said_last}"
    return found


def main() -> None:
    """Fuzzes, prints the table and each fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="of parsers")
    parser.add_argument("--seconds", type=int, default=60, help="each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="not 0, which is libFuzzer's chance")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that made a fault")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.names[0], args.seconds, args.seed, args.work)
        return
    from fuzz_targets import TARGETS

    unknown = [name for name in args.names if name not in TARGETS]
    if unknown:
        parser.error(f"no parser {unknown[0]!r}; there are: {', '.join(TARGETS)}")
    names = args.names or [name for name, target in TARGETS.items() if not target.library]
    print("| parser | inputs | read | refused, named | crashes | hangs |")
    print("|---|---:|---:|---:|---:|---:|")
    told, sums = [], [0] * 5
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HF_HOME"] = f"{temporary}/hub"
        for number, name in enumerate(names):
            folder = Path(temporary) / str(number)
            found = fuzz(name, args.seconds, args.seed, folder)
            hangs = sum(fault.startswith("hang") for fault in found["faults"])
            crashes = len(found["faults"]) - hangs
            row = [*(found[k] for k in ("inputs", "read", "refused")), crashes, hangs]
            sums = [a + b for a, b in zip(sums, row, strict=True)]
            print(f"| {name} | {' | '.join(f'{n:,}' for n in row)} |", flush=True)
            told += [f"{name}, {fault}" for fault in found["faults"].values()]
            if args.keep and found["faults"]:
                args.keep.mkdir(parents=True, exist_ok=True)
                for path in folder.glob("fault-*"):
                    shutil.copy(path, args.keep / f"{number}-{path.name}")
    print(f"| all | {' | '.join(f'{n:,}' for n in sums)} |")
    print("\n".join(told))


if __name__ == "__main__":
    main()
