"""Folders that a report is made of: runs of a recipe, and experiments of a study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ascl_plugin.metrics.result_row import SplitResults
from ascl_plugin.report.document import Section
from ascl_plugin.report.experiment_file import read_section
from ascl_plugin.yaml_file import read_yaml


@dataclass
class Run:
    """A recipe's folder.

    Attributes:
        name: the folder's name, or its whole path if two folders share the name.
        options: the content of config.yaml.
        measured: (split, results) of metrics.json, then of files that `ascl evaluate` wrote.
        log: the lines of log.jsonl.
        best: epoch and metrics of the best validation.
        files: name to path of every file read.
    """

    name: str
    folder: Path
    options: dict[str, object]
    measured: list[tuple[str, SplitResults]]
    log: list[dict[str, float]]
    command: str
    seed: int | str | None
    best: dict[str, float]
    files: dict[str, Path] = field(default_factory=dict)


def read_folders(folders: Sequence[Path]) -> tuple[list[Run], list[Section]]:
    """Return the runs and the experiments of the folders, in their order.

    Args:
        folders: each a run (metrics.json or log.jsonl), an experiment (result.json), or a folder of
            such folders: a study, a study's `runs`.

    Raises:
        FileNotFoundError: no such folder; no figure that an experiment names.
        ValueError: a folder with none of these files in it; a file that is no JSON or lacks an
            entry.
    """
    runs: list[Run] = []
    experiments: list[Section] = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        inside = [folder] if _kind(folder) else [p for p in sorted(folder.iterdir()) if _kind(p)]
        if not inside:
            raise ValueError(
                f"{folder}: nothing to report here; a run has metrics.json or log.jsonl, a study "
                "has NAME/result.json"
            )
        runs += [_read_run(path) for path in inside if _kind(path) == "run"]
        found = [(p, _json(p / "result.json")) for p in inside if _kind(p) == "experiment"]
        found.sort(key=lambda one: one[1].get("place", 0))
        experiments += [read_section(path, content) for path, content in found]
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = str(run.folder)
    return runs, experiments


def _kind(folder: Path) -> str | None:
    if (folder / "metrics.json").is_file() or (folder / "log.jsonl").is_file():
        return "run"
    return "experiment" if (folder / "result.json").is_file() else None


def _read_run(folder: Path) -> Run:
    metrics_file, config, log = (folder / n for n in ("metrics.json", "config.yaml", "log.jsonl"))
    metrics = _json(metrics_file) if metrics_file.is_file() else {}
    options = read_yaml(config) if config.is_file() else {}
    if not isinstance(options, dict):
        raise ValueError(f"{config}: expected option: value, got {type(options).__name__}")
    files = {path.name: path for path in (metrics_file, log, config) if path.is_file()}
    measured = [
        (split, _results(metrics[split], f"{metrics_file}: {split}"))
        for split in ("test", "val")
        if split in metrics
    ]
    for path in sorted(folder.glob("*.json")):
        content = _json(path) if path != metrics_file else {}
        if {"protocol", "rows"} <= content.keys():
            measured.append((str(content.get("split", path.stem)), _results(content, str(path))))
            files[path.name] = path
    return Run(
        name=folder.resolve().name,
        folder=folder,
        options=options,
        measured=measured,
        log=_log(log) if log.is_file() else [],
        command=str(metrics.get("command", "")),
        seed=metrics.get("seed", options.get("seed")),
        best=metrics.get("best", {}),
        files=files,
    )


def _results(content: object, where: str) -> SplitResults:
    try:
        return SplitResults.from_dict(content)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping, got {type(content).__name__}")
    return content


def _log(path: Path) -> list[dict[str, float]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is no UTF-8") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            if number == len(lines):  # cut short when the run was killed
                break
            raise ValueError(f"{path}: line {number} is no JSON object") from error
    return found
