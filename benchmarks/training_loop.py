"""Where the time of a training run goes: waiting for data, forward and backward, update, the rest.

    python benchmarks/training_loop.py --epochs 37 --num_threads 1     # options of the recipe
    python benchmarks/training_loop.py --data_root DIR --config recipes/configs/NAME.yaml

The recipe itself runs, in a folder that is removed again, with clocks around parts of its loop; on
a GPU they measure what the CPU waits for. Stages inside another are taken off it.
"""

from __future__ import annotations

import json
import runpy
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ascl_plugin.data.store import FeatureStore
from ascl_plugin.report.tables import markdown_table
from ascl_plugin.retrieval.evaluation import Evaluator
from ascl_plugin.training import loop
from ascl_plugin.training.feeding import Feed
from ascl_plugin.training.stream_feed import StreamFeed

RECIPE = Path(__file__).parents[1] / "recipes" / "ascl_coco.py"
SECONDS: Counter[str] = Counter()
_open: list[float] = []  # seconds of the stages inside each stage under way


def measured(stage: str, work: Callable[[], Any]) -> Any:
    """What the work returns; its own seconds are added to the stage."""
    start = time.perf_counter()
    _open.append(0.0)
    try:
        return work()
    finally:
        took = time.perf_counter() - start
        SECONDS[stage] += took - _open.pop()
        if _open:
            _open[-1] += took


def clock(owner: Any, name: str, stage: str) -> None:
    """Puts a clock around a function of a class or module."""
    inner = getattr(owner, name)
    setattr(owner, name, lambda *a, **k: measured(stage, lambda: inner(*a, **k)))


def fetched(batches: Iterator[Any]) -> Any:
    """The batches, with a clock around each."""
    end = object()
    while (batch := measured("waiting for data", lambda: next(batches, end))) is not end:
        yield batch


def main(options: list[str]) -> int:
    """Runs the recipe and prints the table."""
    for feed in (Feed, StreamFeed):
        inner = feed.batches
        feed.batches = lambda *a, inner=inner: fetched(inner(*a))  # type: ignore
    clock(loop.Trainer, "_backward", "forward and backward")
    clock(loop.Trainer, "_update", "checks, clipping, optimiser")
    clock(loop.Trainer, "_validate", "validation")
    clock(loop.Trainer, "_save", "checkpoints")
    clock(loop.Trainer, "fit", "the rest of the loop")
    clock(Evaluator, "evaluate", "evaluation and re-ranking at the end")
    clock(Evaluator, "score", "validation")
    clock(FeatureStore, "refresh", "before the loop")
    with tempfile.TemporaryDirectory() as folder:
        recipe = runpy.run_path(str(RECIPE))
        flags = [*options, "--output_dir", f"{folder}/run", "--log_with", "none"]
        code = measured("before the loop", lambda: recipe["main"](flags))
        lines = (Path(folder) / "run" / "log.jsonl").read_text().splitlines()
        speeds = [line["pairs_per_second"] for line in map(json.loads, lines) if "loss" in line]
    whole = sum(SECONDS.values())
    in_loop = whole - SECONDS["before the loop"] - SECONDS["evaluation and re-ranking at the end"]
    rows = [
        {"stage": stage, "seconds": took, "share of the run": f"{100 * took / whole:.1f} %"}
        for stage, took in SECONDS.most_common()
    ]
    print(markdown_table(rows))
    waiting = 100 * SECONDS["waiting for data"] / in_loop
    print(f"\nwaiting for data: {waiting:.1f} % of the loop ({len(speeds)} lines of log)")
    print(f"pairs a second: {statistics.median(speeds):.0f}, the median of these lines")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
