"""Ablations (Table 2 of both papers): what is left when a part is taken out."""

from __future__ import annotations

from typing import Any

from ascl_plugin.experiments.results import Result
from ascl_plugin.experiments.scoreboard import notes, scoreboard


def experiment(study: Any, settings: dict[str, Any]) -> Result:
    """`models`: names, the whole method first; default all."""
    names = {name.replace("_", " "): name for name in study.plan.models_of("ablations")}
    table = scoreboard(study, names, "Ablations")
    return Result("Ablations", [table], notes=notes(study, table))
