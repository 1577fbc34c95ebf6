"""Main results (Table 1 of both papers): each model, before and after re-ranking."""

from __future__ import annotations

from typing import Any

from ascl_plugin.experiments.results import Result
from ascl_plugin.experiments.scoreboard import notes, scoreboard


def experiment(study: Any, settings: dict[str, Any]) -> Result:
    """`models`: names; default all."""
    names = {name: name for name in study.plan.models_of("main")}
    table = scoreboard(study, names, "Main results", ("initial", "reranked"))
    return Result("Main results", [table], notes=notes(study, table))
