"""Trials of `faults.py` on a run of two processes: signals, disks, workers, standing still."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed
from faults_bench import Bench, Mounted, require, size
from faults_launch import Outcome
from faults_pair import Pair

LOST_PEER = "error: another process of the run has ended or hangs ("
STILL = timedelta(seconds=3)  # in place of the half an hour that gloo waits


def ranks_of(bench: Bench) -> Pair:
    """Those of the bench; the first time they run once, left alone."""
    if not hasattr(bench, "ranks"):
        folder, bench.ranks = bench.folder, Pair(bench)
        bench.ranks.measure()
        bench.folder = folder
        (bench.place / "saved").unlink()
    return bench.ranks


def killed(targets: str) -> Callable[[Bench], str]:
    """SIGKILL to some of the run; the others end by themselves."""

    def trial(bench: Bench) -> str:
        ranks = ranks_of(bench)
        more = bench.rng.choice([[], ["--num_workers=1"]])
        outcome = ranks.strike(signal.SIGKILL, targets, *more)
        if outcome.codes == [0, 0]:
            bench.compare(ranks.alone)
            return "had ended"
        if targets in ("0", "1"):
            outcome.printed[int(targets)] = ""  # by data workers whose process is gone
        if targets == "all":
            outcome.printed = ["", ""]
        tidy(outcome)
        return ranks.resumed()

    return trial


def stopped(number: int, targets: str, *more: str) -> Callable[[Bench], str]:
    """A signal that asks, to some of the run."""

    def trial(bench: Bench) -> str:
        ranks = ranks_of(bench)
        who = targets if targets != "one" else str(bench.rng.randint(0, 1))
        outcome = ranks.strike(number, who, *more)
        if outcome.codes == [0, 0]:
            bench.compare(ranks.alone)
            return "had ended"
        tidy(outcome)
        if outcome.struck_in_fit == 2:
            require(outcome.codes == [128 + number] * 2, f"not {128 + number} twice: {outcome}")
            require(f"stopped by signal {number}" in outcome.printed[0], str(outcome))
            saved, logged = bench.saved(), bench.logged()
            require(saved == logged, f"step {logged} was done, {saved} saved")
        return ranks.resumed()

    return trial


def tidy(outcome: Outcome) -> None:
    """Each process ended by a signal, or with a documented status and one line that helps."""
    for code, printed in zip(outcome.codes, outcome.printed, strict=True):
        require(code in (None, 0, 2, 130, 143), str(outcome))
        require("Traceback" not in printed and "terminate called" not in printed, str(outcome))
        require(code != 2 or LOST_PEER in printed, str(outcome))
        require(code != 2 or "--resume go on" in printed.rpartition(LOST_PEER)[2], str(outcome))


def refused(bench: Bench, outcome: Outcome, rank: int, *words: str) -> None:
    """One process says these words; the other ended by a signal, or says that one is gone."""
    code = outcome.codes[rank]
    bench.refused((-1 if code is None else code, outcome.printed[rank]), *words)
    other = 1 - rank
    tidy(Outcome(outcome.launcher, [outcome.codes[other]], [outcome.printed[other]], 0))


def disk_full(bench: Bench) -> str:
    """A disk with too little room for the run, then with enough."""
    ranks = ranks_of(bench)
    room = bench.rng.randint(8, size(bench.alone_folder) // 1024)
    with Mounted(bench.folder, f"{room}k") as disk:
        outcome = ranks.ended(ranks.start())
        if outcome.codes == [0, 0]:
            return "there was room"
        refused(bench, outcome, 0, str(bench.folder), "--resume")
        disk.remount("size=64m")
        return ranks.resumed()


def read_only(bench: Bench) -> str:
    """Begun, killed, resumed on a disk that is read-only by now, then on one that is not."""
    ranks = ranks_of(bench)
    with Mounted(bench.folder, "64m") as disk:
        ranks.strike(signal.SIGKILL, "all")
        disk.remount("ro")
        outcome = ranks.ended(ranks.start("--resume"))
        refused(bench, outcome, 0, str(bench.folder), "Read-only")
        disk.remount("rw")
        return ranks.resumed()


def worker_killed(bench: Bench) -> str:
    """A data worker of one process dies, as by the kernel when memory is short."""
    ranks, rank = ranks_of(bench), bench.rng.randint(0, 1)
    when = bench.rng.uniform(0.3, 1) * ranks.cpu

    def before(number: int) -> None:
        if number == rank:
            bench.kill_worker_after(when)

    outcome = ranks.ended(ranks.start("--num_workers=1", before=before))
    if outcome.codes == [0, 0]:
        bench.compare(ranks.alone)
        return "it had done its work"
    refused(bench, outcome, rank, "DataLoader worker", str(bench.folder), "--resume")
    return ranks.resumed()


def stands_still(bench: Bench) -> str:
    """A process is stopped (SIGSTOP) and does not answer; the other gives up after a while."""
    ranks = ranks_of(bench)
    init: Any = torch.distributed.init_process_group
    torch.distributed.init_process_group = lambda *args, **more: init(
        *args, **{**more, "timeout": STILL}
    )
    try:
        who = bench.rng.randint(0, 1)
        outcome = ranks.strike(signal.SIGSTOP, str(who))
    finally:
        torch.distributed.init_process_group = init
    if outcome.codes == [0, 0]:
        bench.compare(ranks.alone)
        return "had ended"
    tidy(outcome)
    require(outcome.codes[who] is None and outcome.codes[1 - who] == 2, str(outcome))
    return ranks.resumed()


def two_go_on(bench: Bench) -> str:
    """One process is killed or stopped; two go on."""
    code, _ = bench.kill(bench.rng.choice([signal.SIGKILL, signal.SIGTERM]))
    return ranks_of(bench).resumed(first=1, then=2) if code else "had ended"


FAULTS: dict[str, Callable[[Bench], str]] = {
    "two: SIGKILL of the first": killed("0"),
    "two: SIGKILL of the second": killed("1"),
    "two: SIGKILL of the launcher": killed("launcher"),
    "two: SIGKILL of all": killed("all"),
    "two: SIGTERM to one": stopped(signal.SIGTERM, "one"),
    "two: SIGTERM to the launcher": stopped(signal.SIGTERM, "launcher"),
    "two: SIGTERM to all, data workers too": stopped(signal.SIGTERM, "all", "--num_workers=1"),
    "two: Ctrl-C to the launcher": stopped(signal.SIGINT, "launcher"),
    "two: Ctrl-C to all": stopped(signal.SIGINT, "all"),
    "two: a data worker of one is killed": worker_killed,
    "two: one stands still": stands_still,
    "two: the disk is full": disk_full,
    "two: the folder is read-only": read_only,
    "one is killed or stopped, two go on": two_go_on,
}
