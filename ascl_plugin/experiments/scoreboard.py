"""Recalls of several models over the seeds of a study, one model a row: three experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from ascl_plugin.data.rows import caption_to_image
from ascl_plugin.experiments.plan import Settings
from ascl_plugin.experiments.study import Study
from ascl_plugin.metrics.protocols import QueryResults, query_results
from ascl_plugin.metrics.statistics import Spread, over_seeds, paired_test
from ascl_plugin.report.document import Figure, Section
from ascl_plugin.report.plots import save
from ascl_plugin.report.table import Cell, Table, result_cells, spread_cells
from ascl_plugin.reranking import rerank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ASYMMETRY = ("caption", "richer", "shorter")
_TRANSDUCTIVE = "is transductive: a query's result depends on the other queries"
_ASYMMETRY_NOTE = (
    "caption, richer, shorter: share of images for which that text outscores the caption with an "
    "absent object added; blind: the same with the mean image in place of each"
)


def main_results(study: Study, settings: Settings) -> Section:
    """Return each model before and after re-ranking (Table 1 of both papers), and what differs.

    Args:
        study: the trained models.
        settings: `models`, the one that others are held against first; default all.
    """
    models = study.plan.models_of("main")
    names = {name: name for name in models}
    table, notes = scoreboard(study, names, "Main results", ("initial", "reranked"))
    if len(models) == 1:
        return Section("Main results", tables=[table], notes=notes)
    return Section("Main results", tables=[table, differences(study, models)], notes=notes)


def differences(study: Study, models: Sequence[str]) -> Table:
    """Return differences of Rsum from the first model, also re-ranked, with intervals."""
    _, owners = caption_to_image(study.rows())

    def plain(sim: Tensor) -> QueryResults:
        return query_results(sim, owners)

    def reranked(sim: Tensor) -> QueryResults:
        after = rerank(sim, method="inverted_softmax")
        return query_results(after.i2t, owners, t2i=after.t2i)

    rows: list[dict[str, Cell]] = []
    for name, results in (("", plain), (", inverted softmax", reranked)):
        first, *others = (
            [results(study.scores(model, seed)) for seed in study.seeds] for model in models
        )
        for model, other in zip(models[1:], others, strict=True):
            found = paired_test(first, other)["rsum"]
            interval = f"{found.low:+.1f} to {found.high:+.1f}"
            rows.append({
                "model": f"{model}{name}", "Rsum": f"{found.value:+.1f}",
                "95 % interval": interval, "p": f"{found.p_value:.4f}",
            })  # fmt: skip
    return Table(
        f"Rsum less that of {models[0]}, means over the seeds; paired bootstrap and randomisation "
        "over the images",
        rows,
    )


def ablations(study: Study, settings: Settings) -> Section:
    """Return the whole method and the method without each part (Table 2 of both papers).

    Args:
        study: the trained models.
        settings: `models`, names, the whole method first; default all.
    """
    names = {name.replace("_", " "): name for name in study.plan.models_of("ablations")}
    table, notes = scoreboard(study, names, "Ablations")
    return Section("Ablations", tables=[table], notes=notes)


def strategies(study: Study, settings: Settings) -> Section:
    """Return each way to make negatives, and each to make positives (Figure 3 of ACF-R+).

    Args:
        study: the trained models.
        settings: `negatives`, `positives`: label to model; `models` lists all of them.

    Raises:
        ValueError: neither negatives nor positives.
    """
    tables: list[Table] = []
    figures: list[Figure] = []
    notes: list[str] = []
    for kind in ("negatives", "positives"):
        names = settings.get(kind, {})
        if not names:
            continue
        table, notes = scoreboard(study, names, f"Strategies for generated {kind}")
        tables.append(table)
        metrics = {
            label: [study.results(model, seed)["initial"].metrics for seed in study.seeds]
            for label, model in names.items()
        }
        spread = {label: over_seeds(seeds)["rsum"] for label, seeds in metrics.items()}
        path = study.path("strategies", f"{kind}.svg")
        save(partial(_points, spread), path)
        figures.append(Figure(path, f"Rsum by strategy of generated {kind}"))
    if not tables:
        raise ValueError("experiment strategies: neither negatives nor positives in its settings")
    return Section("Single strategies", tables=tables, figures=figures, notes=notes)


def scoreboard(
    study: Study, names: Mapping[str, str], caption: str, parts: Sequence[str] = ("initial",)
) -> tuple[Table, list[str]]:
    """Return means and deviations over seeds, and notes on the columns.

    Args:
        study: the study of the models; they are trained if need be.
        names: label of the row to model.
        caption: of the table.
        parts: names of result rows; each is a row of the table for each model.
    """
    study.runs.train([(model, seed) for seed in study.seeds for model in names.values()])
    rows: list[dict[str, Cell]] = []
    leaks: list[int] = []
    notes = ["mean ± sample deviation over the seeds; the gallery is the whole split"]
    for label, model in names.items():
        found = [study.results(model, seed) for seed in study.seeds]
        for part in parts:
            if found[0][part].leaks:
                leaks.append(len(rows))
            if found[0][part].transductive:
                notes.append(f"{part} {_TRANSDUCTIVE}")
            row: dict[str, Cell] = {"model": label if part == "initial" else f"{label}, {part}"}
            row |= result_cells(spread_cells([one[part].metrics for one in found]))
            if part == "initial" and found[0].asymmetry:
                cells = spread_cells([one.asymmetry for one in found])
                for title in _ASYMMETRY:
                    row[title] = cells[f"asym1_{title}"]
                    if f"asym1_{title}_blind" in cells:
                        row[f"{title}, blind"] = cells[f"asym1_{title}_blind"]
                notes.append(_ASYMMETRY_NOTE)
            rows.append(row)
    return Table(caption, rows, leaks=leaks), list(dict.fromkeys(notes))


def _points(spread: Mapping[str, Spread], axes: Axes) -> None:
    """Draw a point for each strategy, with the deviation over seeds: bars from 0 would hide it."""
    means = [mean for mean, _ in spread.values()]
    deviations = [deviation or 0 for _, deviation in spread.values()]
    axes.errorbar(range(len(spread)), means, yerr=deviations, fmt="o", capsize=4)
    axes.set_xticks(range(len(spread)), list(spread), rotation=30, ha="right")
    axes.set_ylabel("Rsum")
