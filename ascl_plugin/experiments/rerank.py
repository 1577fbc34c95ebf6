"""Re-ranking (Table 3 of ACF-R+): honest, and, marked as a leak, with the labels as neighbors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from ascl_plugin.experiments.plan import Settings
from ascl_plugin.experiments.study import Study, Trained, cells_of
from ascl_plugin.metrics.protocols import protocol_metrics
from ascl_plugin.metrics.result_row import ResultRow, SplitResults
from ascl_plugin.report.document import Section
from ascl_plugin.report.table import Table, result_cells, spread_cells
from ascl_plugin.reranking import rerank
from ascl_plugin.reranking.neighbors import ROW as ORACLE_ROW
from ascl_plugin.retrieval.evaluator import ORACLE_LEAKS

METHODS = ("bidirectional", "inverted_softmax", "dual_softmax", "csls")


def experiment(study: Study, settings: Settings) -> Section:
    """Return recalls of every method on every model.

    Options are given, never searched here: the split that is measured must not choose them.

    Args:
        study: the trained models.
        settings: `models`; `methods`, default those that need no bank of other queries; `options`
            by method.
    """
    methods, options = settings.get("methods", METHODS), settings.get("options", {})
    measured = partial(measure, methods=methods, options=options)
    models = study.plan.models_of("rerank")
    study.runs.train([(model, seed) for seed in study.seeds for model in models])
    tables = []
    found = cells_of(study, "rerank", models, study.seeds, measured)
    for model, cells in found.items():
        seeds = [SplitResults.from_dict(cell) for cell in cells]
        rows = [
            {"": row.name} | result_cells(spread_cells([one[row.name].metrics for one in seeds]))
            for row in seeds[0].rows
        ]
        leaks = [i for i, row in enumerate(seeds[0].rows) if row.leaks]
        tables.append(Table(f"Re-ranking of {model}", rows, leaks=leaks))
    notes = [
        "every row but the first is transductive: a query's result depends on the other queries",
        f'"{ORACLE_ROW}" takes the captions of an image as neighbors of each other, as the '
        "published evaluation does: these are the labels, and its figures are no result",
        "methods at their defaults" + "".join(f"; {k}: {v}" for k, v in options.items()),
    ]
    return Section("Re-ranking", tables=tables, notes=notes)


def measure(
    trained: Trained, methods: Sequence[str], options: Mapping[str, Settings]
) -> dict[str, object]:
    """Return the results of one model before and after each method, as `SplitResults.to_dict`."""
    sim, owners = trained.sim, trained.caption_to_image
    rows = [ResultRow("initial", protocol_metrics(sim, owners))]
    asked = [(method, {"method": method, **options.get(method, {})}) for method in methods]
    k = options.get("bidirectional", {}).get("k", 20)
    asked.append((ORACLE_ROW, {"k": k, "caption_groups": owners}))
    for name, given in asked:
        after = rerank(sim, **given)
        metrics = protocol_metrics(after.i2t, owners, t2i=after.t2i)
        leaks = ORACLE_LEAKS if after.oracle else ""
        rows.append(ResultRow(name, metrics, leaks, after.transductive))
    return SplitResults(rows).to_dict()
