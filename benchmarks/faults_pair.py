"""A run of two processes to disturb: struck, resumed by two or by one, compared."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from faults_bench import Bench, after, count_file_events, require, result
from faults_launch import Launch, Outcome

from ascl_plugin.training import trainer as loop


class Pair(Launch):
    """Two processes on the trial's folder, and what they end with when nobody disturbs them.

    Args:
        bench: of the trials.
    """

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
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

    def strike(self, number: int, targets: str, *more: str) -> Outcome:
        """Starts a run and sends a signal to some of it, after a random time of work of one
        process or in place of a random operation of the first on its files.

        Args:
            number: of the signal. SIGSTOP: only in the training loop, where others will miss it.
            targets: `"0"`, `"1"`, `"launcher"`, or `"all"`, with data workers.
            more: options.
        """
        rng = self.bench.rng
        watched = rng.randint(0, 1)
        when = rng.uniform(0, self.cpu)
        event = rng.randint(1, self.events)
        by_time = rng.random() < 0.5

        def hit(*_: Any) -> None:
            launcher = os.getppid()
            here = [self.pid(rank) or 0 for rank in (0, 1)]
            fitting = [(self.place / f"{rank}.fit").exists() for rank in (0, 1)]
            (self.place / "struck").write_text(str(sum(fitting)))
            if targets == "launcher":
                os.kill(launcher, number)
            elif targets == "all":
                os.kill(launcher, number)
                # itself last
                for pid in sorted(filter(None, here), key=lambda pid: pid == os.getpid()):
                    os.killpg(pid, number)
            elif (pid := here[int(targets)]) and (
                number != signal.SIGSTOP or fitting[int(targets)]
            ):
                os.kill(pid, number)

        def before(rank: int) -> None:
            if by_time and rank == watched:
                after(when, hit)
            elif not by_time and rank == 0:
                count_file_events(self.bench.folder, event, hit)

        return self.ended(self.start(*more, before=before))

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
            bench, folder = self.bench, self.bench.folder
            if not (bench.place / f"of {first}").exists():
                self._keep_each_step(first)
            bench.folder = bench.place / f"of {first} at {step}"
            require(self._go_on(then) == step, "a reference does not go on from its step")
            self.references[first, step] = result(bench.folder)
            bench.folder = folder
        return self.references[first, step]

    def _keep_each_step(self, first: int) -> None:
        """A run that nobody disturbs; its folder as it was at each step."""
        bench = self.bench
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
