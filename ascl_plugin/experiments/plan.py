"""A study as a yaml file: models, seeds and options, and the settings of each experiment."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ascl_plugin.spelling import did_you_mean

#: Plain values of yaml, by name.
Settings = dict[str, Any]

#: Name of an experiment to its module and function, in the order in which `all` runs them.
EXPERIMENTS = {
    "main": "scoreboard:main_results",
    "ablations": "scoreboard:ablations",
    "strategies": "scoreboard:strategies",
    "rerank": "rerank:experiment",
    "cases": "cases:experiment",
    "asymmetry": "asymmetry:experiment",
    "front": "front:experiment",
    "paired": "paired:experiment",
}

#: Name of the run that models start from.
START = "start"


@dataclass(frozen=True)
class Plan:
    """One study.

    Attributes:
        models: name -> options of the recipe, beyond `options`. A model with `start_from: none`
            does not start from the weights of `start`.
        config: yaml file of the recipe that `options` add to, or the name of one in
            `recipes/configs`; None: the recipe's default.
        options: options of every run.
        start: options of a run for each seed whose weights the models start from; empty: none.
        launch: the command that starts a run; `python` is the interpreter at work.
        seeds: seeds of the runs.
        split: the split that is measured.
        experiments: name -> settings.
    """

    models: dict[str, Settings]
    config: str | None = None
    options: Settings = field(default_factory=dict)
    start: Settings = field(default_factory=dict)
    launch: str = "python -m ascl_plugin.training.recipe"
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    split: str = "test"
    experiments: dict[str, Settings] = field(default_factory=dict)

    def command(self) -> list[str]:
        """Return the words that start a run."""
        words = shlex.split(self.launch)
        return [sys.executable if word == "python" else word for word in words]

    def models_of(self, experiment: str) -> list[str]:
        """Return the models that an experiment asks for, by default all; `start` may be one.

        Raises:
            ValueError: an unknown model, or no list of models.
        """
        names = self.experiments.get(experiment, {}).get("models", list(self.models))
        if not isinstance(names, list):
            raise ValueError(f"experiment {experiment}: models is {names!r}, expected a list")
        for name in names:
            known = [*self.models, START] if self.start else self.models
            _check(name, known, f"experiment {experiment}: model")
        return list(names)


def read_plan(path: str | Path) -> Plan:
    """Return the study in a yaml file.

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
        _check(name, Plan.__annotations__, f"{path}: entry")
        kind = kinds.get(name, dict)
        if not isinstance(value, kind):
            raise ValueError(f"{path}: {name} is {value!r:.80}, expected a {kind.__name__}")
    for name in ("models", "experiments"):
        for entry, value in content.get(name, {}).items():
            # a model's name begins the name of its folder
            if not isinstance(entry, str) or not re.fullmatch(r"[\w+=.,-]+", entry):
                raise ValueError(f"{path}: {name}: {entry!r:.80} is no name of a folder")
            if not isinstance(value or {}, dict):
                raise ValueError(f"{path}: {name}: {entry} is {value!r:.80}, expected a dict")
        content[name] = {entry: value or {} for entry, value in content.get(name, {}).items()}
    plan = Plan(**content)
    if not plan.seeds or not all(isinstance(s, int) and 0 <= s < 2**32 for s in plan.seeds):
        raise ValueError(f"{path}: seeds is {plan.seeds!r}, expected numbers from 0")
    if plan.start and START in plan.models:
        raise ValueError(f"{path}: models: {START} is the run that the others start from")
    try:
        for name in plan.experiments:
            _check(name, EXPERIMENTS, "experiment")
            plan.models_of(name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return plan


def with_defaults(experiment: str, given: Settings, defaults: Settings) -> Settings:
    """Return the settings of an experiment, those not given at their defaults.

    Raises:
        ValueError: an unknown setting.
    """
    if unknown := given.keys() - defaults:
        raise ValueError(
            f"{experiment}: no setting {min(unknown)!r}; there are {', '.join(defaults)}"
        )
    return defaults | given


def _check(name: object, known: Collection[str], what: str) -> None:
    if name not in list(known):  # it may be unhashable
        hint = did_you_mean(str(name)[:80], known) or f"; known: {', '.join(known)}"
        raise ValueError(f"{what} {name!r:.80} is not known{hint}")
