"""A study as a yaml file: which models, seeds and options, and what each experiment is to do."""

from __future__ import annotations

import difflib
import importlib
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

#: Experiments by name, in the order in which `all` runs them.
EXPERIMENTS = (
    "main", "ablations", "strategies", "geometry", "tsne", "query_length", "rerank", "cases",
    "notional", "asymmetry", "paired",
)  # fmt: skip

#: Name of the run that models start from.
START = "start"


@dataclass(frozen=True)
class Plan:
    """One study.

    Attributes:
        models: name -> options of the recipe, beyond `options`. `start_from: none` begins at the
            beginning where the others share a start.
        config: yaml file of the recipe that `options` add to; none: the recipe's default.
        options: of every run.
        start: options of a run that each seed begins with; its weights are those the models start
            from. Empty: there is none.
        launch: how a run is started; `python` is the interpreter at work.
        seeds: of the runs.
        split: that is measured.
        experiments: name -> settings.
    """

    models: dict[str, dict[str, Any]]
    config: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    launch: str = "python recipes/ascl_coco.py"
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    split: str = "test"
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)

    def command(self) -> list[str]:
        """The words that start a run."""
        words = shlex.split(self.launch)
        return [sys.executable if word == "python" else word for word in words]

    def models_of(self, experiment: str) -> list[str]:
        """Names of the models an experiment asks for, `start` among them; by default all models.

        Raises:
            ValueError: one that the study has not.
        """
        names = self.experiments.get(experiment, {}).get("models", list(self.models))
        for name in names:
            known = [*self.models, START] if self.start else self.models
            _check(name, known, f"experiment {experiment}: model")
        return list(names)


def read_plan(path: str | Path) -> Plan:
    """The study in a yaml file.

    Raises:
        ValueError: no mapping, an entry of another name or kind, no models; the message names it.
        OSError: the file is not there.
    """
    from ascl_plugin.yaml_file import read_yaml

    content = read_yaml(path)
    if not isinstance(content, dict) or not content.get("models"):
        raise ValueError(f"{path}: expected a study, with at least its models")
    kinds: dict[str, type] = {"seeds": list, "config": str, "launch": str, "split": str}
    for name, value in content.items():
        _check(name, [f.name for f in fields(Plan)], f"{path}: entry")
        kind = kinds.get(name, dict)
        if not isinstance(value, kind):
            told = repr(value)[:80]
            raise ValueError(f"{path}: {name} is {told}, expected a {kind.__name__}")
    for name in ("models", "experiments"):
        for entry, value in content.get(name, {}).items():
            # a model's name begins the name of its folder
            if not isinstance(entry, str) or not re.fullmatch(r"[\w+=.,-]+", entry):
                raise ValueError(f"{path}: {name}: {repr(entry)[:80]} is no name of a folder")
            if not isinstance(value or {}, dict):
                told = repr(value)[:80]
                raise ValueError(f"{path}: {name}: {entry} is {told}, expected a dict")
        content[name] = {entry: value or {} for entry, value in content.get(name, {}).items()}
    if not content.get("seeds", [0]) or not all(
        isinstance(s, int) and 0 <= s < 2**32 for s in content.get("seeds", [])
    ):
        raise ValueError(f"{path}: seeds is {content['seeds']!r}, expected numbers from 0")
    for name in content["experiments"]:
        _check(name, EXPERIMENTS, f"{path}: experiment")
        asked = content["experiments"][name].get("models", [])
        if not isinstance(asked, list):
            raise ValueError(f"{path}: experiment {name}: models is {asked!r}, expected a list")
    plan = Plan(**content)
    if plan.start and START in plan.models:
        raise ValueError(f"{path}: models: {START} is the run that the others start from")
    for name in plan.experiments:
        try:
            plan.models_of(name)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return plan


def load(experiment: str) -> Any:
    """The function of an experiment: (study, settings) -> Result."""
    return importlib.import_module(f"ascl_plugin.experiments.{experiment}").experiment


def _check(name: Any, known: Iterable[str] | Mapping[str, Any], what: str) -> None:
    if name not in list(known):
        near = difflib.get_close_matches(str(name)[:80], list(known), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
        raise ValueError(f"{what} {repr(name)[:80]} is not known{hint}")
