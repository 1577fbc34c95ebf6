"""What lies in the folders that a report is made of: runs of a recipe, experiments of a study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ascl_plugin.yaml_file import read_yaml


@dataclass
class Measured:
    """Metrics of one split under one protocol, of one file.

    Attributes:
        split: "val", "test", or the name of the file where it does not say.
        protocol: "full", "coco_1k", ...
        rows: name of the row ("initial", "reranked", ...) to metrics.
        intervals: name of the row to metric to (low, high).
        asymmetry: of the asymmetry benchmark, in percent.
    """

    split: str
    protocol: str
    rows: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    asymmetry: dict[str, float]


@dataclass
class Run:
    """A recipe's folder."""

    name: str
    folder: Path
    options: dict[str, Any]
    measured: list[Measured]
    log: list[dict[str, Any]]
    command: str
    seed: Any
    best: dict[str, Any]
    files: dict[str, Path] = field(default_factory=dict)


@dataclass
class Experiment:
    """`result.json` of an experiment, and where it lies."""

    name: str
    folder: Path
    result: dict[str, Any]


def read_folders(folders: Sequence[Path]) -> tuple[list[Run], list[Experiment]]:
    """Runs and experiments of the folders, in their order.

    Args:
        folders: each a run (metrics.json or log.jsonl), an experiment (result.json), or a folder of
            such folders: a study, a study's `runs`.

    Raises:
        FileNotFoundError: a folder that is not there.
        ValueError: a folder with none of these files in it; a file that is no JSON or lacks what
            belongs there.
    """
    runs: list[Run] = []
    experiments: list[Experiment] = []
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
        found = [_read_experiment(path) for path in inside if _kind(path) == "experiment"]
        experiments += sorted(found, key=lambda one: one.result.get("place", 0))
    _name(runs)
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
        _measured(metrics[split], split, metrics_file)
        for split in ("test", "val")
        if split in metrics
    ]
    for path in sorted(folder.glob("*.json")):
        if path == metrics_file:
            continue
        content = _json(path)
        if "protocol" in content and any("rsum" in row for row in _mappings(content).values()):
            measured.append(_measured(content, str(content.get("split", path.stem)), path))
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


def _measured(content: Any, split: str, path: Path) -> Measured:
    if not isinstance(content, dict):
        raise ValueError(f"{path}: {split} is {type(content).__name__}, expected metrics")
    rows = {name: row for name, row in _mappings(content).items() if "rsum" in row}
    try:
        intervals = {
            name: {metric: (low, high) for metric, (low, high) in row.items()}
            for name, row in content.get("intervals", {}).items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: intervals of {split} are not {{row: {{metric: [low, high]}}}}"
        ) from error
    protocol = str(content.get("protocol", "full"))
    return Measured(split, protocol, rows, intervals, content.get("asymmetry", {}))


def _mappings(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: value for name, value in content.items() if isinstance(value, dict)}


def _read_experiment(folder: Path) -> Experiment:
    path = folder / "result.json"
    result = _json(path)
    for name in ("title", "tables"):
        if name not in result:
            raise ValueError(f"{path}: no {name!r} in it; expected the result of an experiment")
    return Experiment(folder.resolve().name, folder, result)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping, got {type(content).__name__}")
    return content


def _log(path: Path) -> list[dict[str, Any]]:
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


def _name(runs: list[Run]) -> None:
    """Folder names, or whole paths where two folders have the same name."""
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = str(run.folder)
