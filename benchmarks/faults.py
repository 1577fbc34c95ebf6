"""Kill training runs at random moments, resume them, and compare the ends byte for byte.

    python benchmarks/faults.py --trials 64 --seed 0

A trial forks the recipe on 12 drawn scenes as one or two ranks (9 optimizer steps, a checkpoint
every 2), sends a signal after a random time of work or before a random operation on the run's
files, and resumes the run. It is lost if a rank does not end within a minute of the other, if a
message is a traceback, if the resumed run starts before the newest checkpoint, or if weights or
metrics at the end differ from those of an undisturbed run. Needs fork and POSIX signals.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import multiprocessing.connection
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import ModuleType

import torch
import torch._dynamo  # imported by the first optimizer: once here, not in each trial
import torch.distributed

from ascl_plugin.data import scenes

OPTIONS = [
    "--scenes_train=12", "--scenes_val=3", "--scenes_test=3", "--epochs=3", "--batch_size=4",
    "--captions_per_epoch=1", "--dim=8", "--image_encoder.width=8", "--text_encoder.width=8",
    "--save_every=2", "--log_every=1",
    "--align_epochs=1", "--eval_every=2", "--loss.temperature=0.05", "--eval_batch_size=4",
    "--cpu=True", "--num_threads=1", "--log_with=none",
]  # fmt: skip
LAST = "checkpoint-0000009"
LONGEST, WITHIN = 600, 60  # seconds: of a run; for all ranks to end after the first
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


class Lost(Exception):
    """A broken promise."""


@dataclass
class Ended:
    """Exit status of each rank (None: it hangs; below 0: a signal), and its output."""

    codes: list[int | None]
    printed: list[str]

    def require(self, fine: bool) -> None:
        """Raise Lost with all that is known unless `fine`."""
        if not fine:
            raise Lost(f"{self.codes}: {' | '.join(text[-1500:] for text in self.printed)}")


class Bench:
    """The recipe on `world` ranks: an undisturbed run, and the means to disturb others.

    Args:
        recipe: module of the recipe, with scenes that are drawn already.
        place: folder for runs.
        world: number of ranks.
        rng: source of chance for the trials.
    """

    def __init__(self, recipe: ModuleType, place: Path, world: int, rng: random.Random) -> None:
        self.recipe, self.place, self.world, self.rng = recipe, place, world, rng
        place.mkdir()
        self.folder, cost = place / "alone", place / "cost"

        def measure() -> None:
            count, end = count_file_events(self.folder), recipe.main

            def main(argv: list[str]) -> int:
                code = end(argv)
                cost.write_text(json.dumps([time.process_time(), count[0]]))
                return code

            recipe.main = main  # type: ignore[attr-defined]

        ended = self.run(before=lambda rank: None if rank else measure())
        ended.require(ended.codes == [0] * world)
        self.cpu, self.events = json.loads(cost.read_text())
        self.alone = result(self.folder)
        self.folder = place / "run"

    def run(self, *more: str, before: Callable[[int], None] | None = None) -> Ended:
        """Run the recipe; `before` is called in each rank. Raise Lost if a rank does not end."""
        store = self.place / "store"
        store.unlink(missing_ok=True)
        outputs = [self.place / f"{rank}.txt" for rank in range(self.world)]

        def work(rank: int, group: int) -> None:
            os.setpgid(0, group)
            file = os.open(outputs[rank], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            if self.world > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(self.world))
                url = f"file://{store}?rank={rank}&world_size={self.world}"
                torch.distributed.init_process_group("gloo", init_method=url)
            if before is not None:
                before(rank)
            sys.exit(self.recipe.main([*OPTIONS, f"--output_dir={self.folder}", *more]))

        ranks: list[ForkProcess] = []  # in one process group, with their data workers
        for rank in range(self.world):
            ranks.append(ForkProcess(target=work, args=(rank, ranks[0].pid if ranks else 0)))
            ranks[rank].start()
            os.setpgid(ranks[rank].pid or 0, ranks[0].pid or 0)
        multiprocessing.connection.wait([process.sentinel for process in ranks], LONGEST)
        end = time.monotonic() + WITHIN
        for process in ranks:
            process.join(max(0, end - time.monotonic()))
        codes = [process.exitcode for process in ranks]
        for process in ranks:
            process.kill()
        ended = Ended(codes, [output.read_text(errors="replace") for output in outputs])
        ended.require(None not in codes)
        return ended

    def strike(self, hit: Callable[[], object], *more: str) -> Ended:
        """Run, and call `hit` in one rank at a random moment of its work."""
        watched, by_time = self.rng.randrange(self.world), self.rng.random() < 0.5
        when, event = self.rng.uniform(0.001, self.cpu), self.rng.randint(1, self.events)

        def before(rank: int) -> None:
            if by_time and rank == watched:
                after(when, hit)
            elif not by_time and rank == 0:
                count_file_events(self.folder, event, hit)

        return self.run(*more, before=before)

    def resume(self) -> str:
        """Resume to the end, which must be that of the undisturbed run; return the first step."""
        newest = max((int(p.name[11:]) for p in self.folder.glob("checkpoint-*")), default=0)
        ended = self.run("--resume", "auto")
        ended.require(ended.codes == [0] * self.world)
        found = re.search(r"resumed from .*checkpoint-0*(\d+), step", ended.printed[0])
        step = int(found[1]) if found else 0
        ended.require(step >= newest)
        self.compare()
        return "resumed" if step else "begun anew"

    def compare(self) -> None:
        """Raise Lost unless the folder holds the result of the undisturbed run."""
        found = result(self.folder)
        wrong = [name for name in self.alone if found[name] != self.alone[name]]
        left = [p.name for p in self.folder.glob(".*") if not p.name.endswith(".lock")]
        if wrong or left:
            raise Lost(f"differ: {wrong}; left behind: {left}")


def after(seconds: float, hit: Callable[[], object]) -> None:
    """Call `hit` after some CPU time of this process; 0.003 s later again if it returns True."""

    def alarm(*_: object) -> None:
        if hit() is True:
            signal.setitimer(signal.ITIMER_PROF, 0.003)

    signal.signal(signal.SIGPROF, alarm)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def count_file_events(
    folder: Path, last: int = 0, hit: Callable[[], object] | None = None
) -> list[int]:
    """Count operations on files of the folder from now on; call `hit` before the `last` one."""
    count = [0]

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in FILE_EVENTS and str(args[0]).startswith(str(folder)):
            count[0] += 1
            if count[0] == last and hit is not None:
                hit()

    sys.addaudithook(hook)
    return count


def result(folder: Path) -> dict[str, object]:
    """Return hashes of the weights of a finished run, and its metrics."""
    metrics = json.loads((folder / "metrics.json").read_text())
    weights = {
        name: hashlib.sha256((folder / name / "model.safetensors").read_bytes()).hexdigest()
        for name in ("best", LAST)
    }
    return {**weights, "metrics.json": {k: metrics[k] for k in ("val", "best")}}


def signalled(number: int, everyone: bool, *more: str) -> Callable[[Bench], str]:
    """Return a trial: a signal to one rank, or to all ranks and their data workers."""

    def trial(bench: Bench) -> str:
        hit = (lambda: os.killpg(0, number)) if everyone else lambda: os.kill(os.getpid(), number)
        ended = bench.strike(hit, *more)
        if not any(ended.codes):
            bench.compare()
            return "had ended"
        ended.require(number == signal.SIGKILL or 128 + number in ended.codes or bench.world == 1)
        for code, printed in zip(ended.codes, ended.printed, strict=True):
            # a signal that is not yet, or no longer, handled ends the process at once
            ended.require(code in (0, 2, -number, 128 + number))
            ended.require(code == -signal.SIGKILL or "Traceback" not in printed)
            ended.require(code != 2 or "--resume" in printed.rpartition("\nerror: ")[2])
        return bench.resume()

    return trial


def worker_killed(bench: Bench) -> str:
    """Kill the data worker of one rank, as the kernel does when memory is short."""

    def hit() -> bool:
        workers = multiprocessing.active_children()
        for worker in workers:
            worker.kill()
        return not workers

    watched, when = bench.rng.randrange(bench.world), bench.rng.uniform(0.3, 1) * bench.cpu
    start = lambda rank: after(when, hit) if rank == watched else None  # noqa: E731
    ended = bench.run("--num_workers=1", before=start)
    if not any(ended.codes):
        bench.compare()
        return "had ended"
    ended.require(ended.codes[watched] == 2 and "DataLoader worker" in ended.printed[watched])
    ended.require("Traceback" not in "".join(ended.printed))
    return bench.resume()


WORKERS = "--num_workers=1"
FAULTS: dict[str, tuple[int, Callable[[Bench], str]]] = {
    "SIGKILL": (1, signalled(signal.SIGKILL, False, WORKERS)),
    "SIGTERM": (1, signalled(signal.SIGTERM, False)),
    "SIGTERM, data workers too": (1, signalled(signal.SIGTERM, True, WORKERS)),
    "Ctrl-C": (1, signalled(signal.SIGINT, True, WORKERS)),
    "a data worker is killed": (1, worker_killed),
    "two ranks: SIGKILL of one": (2, signalled(signal.SIGKILL, False)),
    "two ranks: SIGTERM to one": (2, signalled(signal.SIGTERM, False)),
    "two ranks: Ctrl-C to all": (2, signalled(signal.SIGINT, True, WORKERS)),
}


def load_recipe() -> ModuleType:
    """Return the recipe, on scenes that are drawn once and without a test split."""
    path = Path(__file__).parents[1] / "recipes" / "ascl_coco.py"
    spec = importlib.util.spec_from_file_location("ascl_coco_recipe", path)
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    rows = {"train": scenes.make("train", 12, 0), "val": scenes.make("val", 3, 0)}
    recipe.load_splits = lambda _: dict(rows)  # type: ignore[attr-defined]
    return recipe


def main() -> int:
    """Print a table of the trials; return 1 if any was lost."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--trials", type=int, default=8 * len(FAULTS))
    words.add_argument("--seed", type=int, default=0)
    args = words.parse_args()
    torch.set_num_threads(1)
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in FAULTS}
    lost, recipe = [], load_recipe()
    with tempfile.TemporaryDirectory(prefix="faults") as place:
        rng = random.Random(args.seed)
        benches = {world: Bench(recipe, Path(place, str(world)), world, rng) for world in (1, 2)}
        for number in range(args.trials):
            name = list(FAULTS)[number % len(FAULTS)]
            world, trial = FAULTS[name]
            rng.seed(f"{args.seed} {number}")
            shutil.rmtree(benches[world].folder, ignore_errors=True)
            try:
                outcomes[name][trial(benches[world])] += 1
            except Lost as why:
                outcomes[name]["lost"] += 1
                lost.append(f"{name}, trial {number}: {why}")
    print("| fault | trials | lost | outcomes |\n| --- | ---: | ---: | --- |")
    for name, counts in outcomes.items():
        how = ", ".join(f"{n} {word}" for word, n in counts.most_common() if word != "lost")
        print(f"| {name} | {counts.total()} | {counts['lost']} | {how} |")
    print(f"| all | {args.trials} | {len(lost)} | |")
    print("\n".join(lost), file=sys.stderr)
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
