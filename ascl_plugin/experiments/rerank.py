"""Re-ranking (Table 3 of ACF-R+): honest, and, marked as a leak, with the labels as neighbours."""

from __future__ import annotations

from typing import Any

from ascl_plugin.experiments.results import Result, Table
from ascl_plugin.metrics.protocols import protocol_metrics
from ascl_plugin.metrics.statistics import over_seeds
from ascl_plugin.report.tables import RESULT_COLUMNS, spread_cells
from ascl_plugin.reranking import neighbors as oracle
from ascl_plugin.reranking import rerank

METHODS = ("bidirectional", "inverted_softmax", "dual_softmax", "csls")


def experiment(study: Any, settings: dict[str, Any]) -> Result:
    """`models`; `methods`, default those that need no bank of other queries; `options` by method.

    Options are given, never searched here: the split that is measured must not choose them.
    """
    methods = settings.get("methods", METHODS)
    options = settings.get("options", {})
    models = study.plan.models_of("rerank")
    study.runs.train([(model, seed) for seed in study.seeds for model in models])
    tables = []
    for model in models:
        seeds = [
            study.cell("rerank", f"{model}-{seed}", lambda m=model, s=seed: _measure(
                study.trained(m, s), methods, options
            ))
            for seed in study.seeds
        ]  # fmt: skip
        rows = []
        for name in ("initial", *methods, oracle.ROW):
            spread = over_seeds([{k: one[name][k] for k in RESULT_COLUMNS} for one in seeds])
            cells = spread_cells(spread)
            rows.append({"": name} | {title: cells[key] for key, title in RESULT_COLUMNS.items()})
        tables.append(Table(f"Re-ranking of {model}", rows))
    notes = [
        "every row but the first is transductive: a query's result depends on the other queries",
        f'"{oracle.ROW}" takes the captions of an image as neighbours of each other, as the '
        "published evaluation does: these are the labels, and its figures are no result",
        "methods at their defaults" + "".join(f"; {k}: {v}" for k, v in options.items()),
    ]
    return Result("Re-ranking", tables, notes=notes)


def _measure(trained: Any, methods: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Name of the row -> metrics, of one model."""
    sim, owners = trained.sim, trained.caption_to_image
    found = {"initial": protocol_metrics(sim, owners)}
    for method in methods:
        i2t, t2i = rerank(sim, method=method, **options.get(method, {}))
        found[method] = protocol_metrics(i2t, owners, t2i=t2i)
    k = options.get("bidirectional", {}).get("k", 20)
    i2t, t2i = rerank(sim, k=k, caption_groups=owners)
    found[oracle.ROW] = protocol_metrics(i2t, owners, t2i=t2i)
    return found
