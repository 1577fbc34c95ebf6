"""Recalls of several models over the seeds of a study, one model a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ascl_plugin.experiments.results import Table
from ascl_plugin.metrics.statistics import over_seeds
from ascl_plugin.report.tables import RESULT_COLUMNS, spread_cells

ASYMMETRY_COLUMNS = {
    "asym1_caption": "caption",
    "asym1_richer": "richer",
    "asym1_shorter": "shorter",
}


def scoreboard(
    study: Any, names: Mapping[str, str], caption: str, parts: Sequence[str] = ("initial",)
) -> Table:
    """Mean and deviation over seeds.

    Args:
        study: whose models; they are trained if need be.
        names: label of the row -> model.
        caption: of the table.
        parts: "initial" and "reranked", a row each.
    """
    study.runs.train([(model, seed) for seed in study.seeds for model in names.values()])
    rows = []
    for label, model in names.items():
        found = [study.metrics(model, seed)[study.split] for seed in study.seeds]
        for part in parts:
            cells = spread_cells(over_seeds([one[part] for one in found]))
            row: dict[str, Any] = {"model": label if part == "initial" else f"{label}, {part}"}
            row |= {title: cells[key] for key, title in RESULT_COLUMNS.items()}
            if part == "initial" and "asymmetry" in found[0]:
                cells = spread_cells(over_seeds([one["asymmetry"] for one in found]))
                row |= {title: cells[key] for key, title in ASYMMETRY_COLUMNS.items()}
            rows.append(row)
    return Table(caption, rows)


def notes(study: Any, table: Table) -> list[str]:
    """What the columns of a `scoreboard` mean."""
    found = ["mean ± sample deviation over the seeds; the gallery is the whole split"]
    if "caption" in table.rows[0]:
        found.append(
            "caption, richer, shorter: share of images for which that text outscores the caption "
            "with an absent object added"
        )
    if any(row["model"].endswith(", reranked") for row in table.rows):
        found.append("reranked is transductive: a query's result depends on the other queries")
    return found
