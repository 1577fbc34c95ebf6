"""Time of a training run by part: waiting for data, encoders, scores, backward, the rest.

    python benchmarks/training_loop.py --num_threads 1                 # options of the recipe
    python benchmarks/training_loop.py --data_root DIR --config recipes/configs/NAME.yaml
    python benchmarks/training_loop.py --steps_only --max_steps 100    # no validation
    python benchmarks/training_loop.py --steps_only --stop_after 60    # seconds of steps

The recipe itself runs, in a folder that is removed again, with clocks around parts of it; on
a GPU they measure what the CPU waits for. Stages inside another are taken off it, but all that
validation and evaluation do is theirs.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer

from ascl_plugin.data.store import FeatureStore
from ascl_plugin.losses import AsymmetryLoss
from ascl_plugin.report.table import Table, markdown_table
from ascl_plugin.retrieval import model
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.training import trainer as loop
from ascl_plugin.training.batches import ListedFeed
from ascl_plugin.training.step import Step
from ascl_plugin.training.stream_feed import StreamFeed

RECIPE = Path(__file__).parents[1] / "recipes" / "ascl_coco.py"
SECONDS: Counter[str] = Counter()
WHOLE = ("validation", "evaluation and re-ranking at the end", "checkpoints")  # nothing inside
OUTSIDE = ("before the loop", *WHOLE)  # of the steps
_open: list[tuple[str, list[float]]] = []  # stages under way, seconds of those inside each


def measured(stage: str, work: Callable[[], Any]) -> Any:
    """Return the result of the work; add its own seconds to the stage."""
    if _open and _open[-1][0] in WHOLE:
        return work()
    start = time.perf_counter()
    _open.append((stage, []))
    try:
        return work()
    finally:
        took = time.perf_counter() - start
        SECONDS[stage] += took - sum(_open.pop()[1])
        if _open:
            _open[-1][1].append(took)


def clock(owner: Any, name: str, stage: str) -> None:
    """Put a clock around a function of a class or module."""
    inner = getattr(owner, name)
    setattr(owner, name, lambda *a, **k: measured(stage, lambda: inner(*a, **k)))


def fetched(batches: Iterator[Any]) -> Any:
    """Yield the batches, with a clock around each."""
    end = object()
    while (batch := measured("waiting for data", lambda: next(batches, end))) is not end:
        yield batch


def stop(*_: Any) -> None:
    """End the run."""
    raise SystemExit(0)


def limit(seconds: float) -> None:
    """Send Ctrl-C some seconds after the first step: the run leaves a checkpoint and ends."""
    inner = loop.Trainer.fit

    def fit(trainer: loop.Trainer) -> None:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            inner(trainer)
        finally:
            timer.cancel()

    loop.Trainer.fit = fit  # type: ignore[method-assign]


def main(options: list[str]) -> int:
    """Run the recipe and print the table."""
    code, rows, rates = run(options)
    print(markdown_table(Table("", rows, digits=1)))
    print(
        "\nsteps: {steps}, {pairs/s:.0f} pairs/s, {% waiting for data:.1f} % waiting for data\n"
        "whole run: {whole run, s:.1f} s".format_map(rates)
    )
    return code


def run(options: list[str]) -> tuple[int, list[dict[str, Any]], dict[str, float]]:
    """Run the recipe; return its exit status, rows of the table, and rates."""
    if "--stop_after" in options:
        at = options.index("--stop_after")
        limit(float(options[at + 1]))
        options = options[:at] + options[at + 2 :]
    if "--steps_only" in options:
        options = [word for word in options if word != "--steps_only"]
        loop.Trainer._validate = lambda *_: None  # type: ignore[method-assign]
        loop.Trainer.load_best = stop  # type: ignore[method-assign]
    for feed in (ListedFeed, StreamFeed):
        inner = feed.batches
        feed.batches = lambda *a, inner=inner: fetched(inner(*a))  # type: ignore
    clock(model.RetrievalModel, "encode_images", "images: encoder, projection")
    clock(model.RetrievalModel, "encode_texts", "texts: encoder, projection")
    clock(model, "generate_negatives", "generated negatives")
    clock(model.RetrievalModel, "score_blocks", "scores")
    clock(AsymmetryLoss, "forward", "loss")
    clock(Accelerator, "backward", "backward")
    clock(Accelerator, "clip_grad_norm_", "checks, clipping, optimizer")
    clock(AcceleratedOptimizer, "step", "checks, clipping, optimizer")
    clock(Step, "_update", "checks, clipping, optimizer")
    clock(loop.Trainer, "_log", "log")
    clock(loop.Trainer, "_validate", "validation")
    clock(loop.Trainer, "_save", "checkpoints")
    clock(loop.Trainer, "fit", "the rest of the loop")
    clock(Evaluator, "evaluate", "evaluation and re-ranking at the end")
    clock(Evaluator, "score", "evaluation and re-ranking at the end")
    clock(FeatureStore, "refresh", "before the loop")
    with tempfile.TemporaryDirectory() as folder:
        recipe = runpy.run_path(str(RECIPE))
        flags = [*options, "--output_dir", f"{folder}/run"]
        try:
            code = measured("before the loop", lambda: recipe["main"](flags))
        except SystemExit as end:
            code = int(end.code or 0)
        log = Path(folder) / "run" / "log.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []  # stopped before the first
        steps = max((json.loads(line)["step"] for line in lines), default=0)
        config = (Path(folder) / "run" / "config.yaml").read_text().splitlines()
    pairs = steps * next(int(x.split()[1]) for x in config if x.startswith("batch_size:"))
    whole = sum(SECONDS.values())
    in_steps = whole - sum(SECONDS[stage] for stage in OUTSIDE)
    rows = [
        {"stage": stage, "seconds": took, "share of the run": f"{100 * took / whole:.1f} %"}
        for stage, took in SECONDS.most_common()
    ]
    waiting = 100 * SECONDS["waiting for data"] / in_steps
    rates = {"steps": steps, "pairs/s": pairs / in_steps, "% waiting for data": waiting}
    return code, rows, rates | {"whole run, s": whole}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
