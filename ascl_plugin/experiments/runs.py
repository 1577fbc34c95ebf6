"""Trained models of a study: each a run of a recipe in a process of its own, trained once."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from tqdm.auto import tqdm

from ascl_plugin.disk import write_text
from ascl_plugin.experiments.plan import START, Plan, Settings
from ascl_plugin.training.parsing import CONFIGS
from ascl_plugin.yaml_file import named, read_yaml


class Runs:
    """The runs of a study under `folder`, `NAME-SEED` each; `jobs` are trained at the same time."""

    def __init__(self, plan: Plan, folder: Path, jobs: int = 1) -> None:
        self.plan = plan
        self.folder = folder
        self.jobs = jobs
        self._alive: set[subprocess.Popen] = set()
        self._stopped = threading.Event()

    def train(self, wanted: Sequence[tuple[str, int]]) -> None:
        """Train each (model, seed) that is not finished, after the run that it starts from.

        Raises:
            RuntimeError: runs that failed, after all others have ended; the message names their
                logs.
            ValueError: a finished run with other options than the plan's.
        """
        models = [(m, s) for m, s in dict.fromkeys(wanted) if not self._finished(m, s)]
        starts = sorted({s for m, s in models if self._starts(m) or m == START})
        first = [(START, s) for s in starts if not self._finished(START, s)]
        models = [(m, s) for m, s in models if m != START]
        if not first and not models:
            return
        with tqdm(total=len(first) + len(models), desc="training", unit="run") as bar:
            for stage in (first, models):
                with ThreadPoolExecutor(self.jobs) as pool:
                    try:
                        failed = [f for f in pool.map(self._run, stage, [bar] * len(stage)) if f]
                    except BaseException:
                        self._stop()
                        raise
                if failed:
                    raise RuntimeError("; ".join(failed))

    def path(self, model: str, seed: int) -> Path:
        """Return the folder of a run."""
        return self.folder / f"{model}-{seed}"

    def metrics(self, model: str, seed: int) -> Settings:
        """Return `metrics.json` of a finished run."""
        return json.loads((self.path(model, seed) / "metrics.json").read_text())

    def options(self, model: str, seed: int) -> Settings:
        """Return the options of a run: the recipe's config, the plan's, and its own."""
        start = {"start_from": str(self.path(START, seed))} if self._starts(model) else {}
        asked = {**start, **(self.plan.start if model == START else self.plan.models[model])}
        if asked.get("start_from") == "none":
            del asked["start_from"]
        config = {} if self.plan.config is None else read_yaml(named(self.plan.config, CONFIGS))
        own = {"seed": seed, "log_with": "none", "save_scores": True}
        return {**config, **self.plan.options, **asked, **own}

    def _starts(self, model: str) -> bool:
        own = {} if model == START else self.plan.models[model]
        return bool(self.plan.start) and model != START and own.get("start_from") != "none"

    def _config(self, model: str, seed: int) -> Path:
        return self.folder / f"{model}-{seed}.yaml"

    def _finished(self, model: str, seed: int) -> bool:
        if not (self.path(model, seed) / "metrics.json").exists():
            return False
        asked = self.options(model, seed)
        trained = read_yaml(self._config(model, seed))
        changed = [k for k in asked.keys() | trained if asked.get(k) != trained.get(k)]
        if changed:
            name = sorted(changed)[0]
            raise ValueError(
                f"{self.path(model, seed)} was trained with {name}={trained.get(name)!r}, the "
                f"study now says {asked.get(name)!r}; delete it, or choose another --output_dir"
            )
        return True

    def _run(self, cell: tuple[str, int], bar: tqdm) -> str | None:
        """Train one run; return an error message, or None."""
        if self._stopped.is_set():
            return None
        folder, config = self.path(*cell), self._config(*cell)
        write_text(config, yaml.safe_dump(self.options(*cell), sort_keys=False))
        command = [*self.plan.command(), "--config", str(config), "--output_dir", str(folder)]
        log = folder.with_suffix(".log")
        with open(log, "ab") as out:
            process = subprocess.Popen(
                [*command, "--resume", "auto"], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
            self._alive.add(process)
            code = process.wait()
            self._alive.discard(process)
        bar.update()
        return f"{folder.name} ended with status {code}, see {log}" if code else None

    def _stop(self) -> None:
        """Ask running processes to write a checkpoint and end."""
        self._stopped.set()
        for process in list(self._alive):
            process.terminate()
