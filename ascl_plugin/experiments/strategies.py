"""Single strategies (Figure 3 of ACF-R+): each way to make negatives, each to make positives."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ascl_plugin.experiments.results import Figure, Result
from ascl_plugin.experiments.scoreboard import notes, scoreboard
from ascl_plugin.metrics.statistics import over_seeds
from ascl_plugin.report.plots import save


def experiment(study: Any, settings: dict[str, Any]) -> Result:
    """`negatives`, `positives`: label -> model; `models` lists all of them."""
    tables, figures = [], []
    for kind in ("negatives", "positives"):
        names = settings.get(kind, {})
        if not names:
            continue
        tables.append(scoreboard(study, names, f"Strategies for generated {kind}"))
        spread = {
            label: over_seeds(
                [study.metrics(model, seed)[study.split]["initial"] for seed in study.seeds]
            )["rsum"]
            for label, model in names.items()
        }
        file = f"{kind}.svg"
        save(partial(_points, spread), study.path("strategies", file))
        figures.append(Figure(file, f"Rsum by strategy of generated {kind}"))
    if not tables:
        raise ValueError("experiment strategies: neither negatives nor positives in its settings")
    return Result("Single strategies", tables, figures, notes(study, tables[0]))


def _points(spread: Mapping[str, Any], axes: Any) -> None:
    """A point for each strategy, with the deviation over seeds: bars from 0 would hide it all."""
    means = [mean for mean, _ in spread.values()]
    deviations = [deviation or 0 for _, deviation in spread.values()]
    axes.errorbar(range(len(spread)), means, yerr=deviations, fmt="o", capsize=4)
    axes.set_xticks(range(len(spread)), list(spread), rotation=30, ha="right")
    axes.set_ylabel("Rsum")
