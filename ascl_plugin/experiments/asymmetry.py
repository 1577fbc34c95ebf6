"""The asymmetry benchmark on a study's models: what the papers' Figure 1 claims, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ascl_plugin.asymmetry.captions.variants import Variants, make_variants
from ascl_plugin.experiments.results import Figure, Result, Table
from ascl_plugin.metrics.statistics import Spread, over_seeds
from ascl_plugin.report.metrics_file import write_json
from ascl_plugin.report.plots import legend, lines, panels, save
from ascl_plugin.report.tables import spread_cells
from ascl_plugin.retrieval.asymmetry_benchmark import (
    asymmetry_benchmark,
    sugarcrepe_benchmark,
    variant_benchmark,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ascl_plugin.experiments.study import Study, Trained

Cells = dict[str, list[dict[str, Any]]]
"""Model -> what `measure` found with each seed."""

RANKS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medr": "median rank", "meanr": "mean rank"}


def experiment(study: Study, settings: dict[str, Any]) -> Result:
    """Accuracy against negatives, rank of positives, score by amount, of every model and seed.

    Args:
        study: of at least one model.
        settings: `models`, by default all; `rows`, of how many images captions are varied (1,000;
            each is ranked among all); `sample_seed` (0); `sugarcrepe`, a folder or file of
            `read_sugarcrepe`, and `image_root` of its images.

    Raises:
        ImportError: real captions, and no tagger (extra `words`).
    """
    variants = cache(partial(_variants, study, settings))
    pairs = cache(partial(_sugarcrepe, settings))

    def cell(model: str, seed: int) -> dict[str, Any]:
        return measure(study.trained(model, seed), variants(), pairs())

    found: Cells = {
        model: [
            study.cell("asymmetry", f"{model}-{seed}", partial(cell, model, seed))
            for seed in study.seeds
        ]
        for model in settings.get("models", list(study.models))
    }
    first = next(iter(found.values()))[0]
    exact = "scenes" in first
    tables = [
        Table(
            "Accuracy against negatives, in percent; chance is 50, a tie counts against; "
            f"{_counts(first['negatives'])}; mean ± deviation over seeds",
            _accuracies(found, "negatives"),
        ),
        Table(
            "Rank of the image among all for positives, recalls in percent; mean ± deviation over "
            "seeds",
            _ranks(found),
        ),
        Table(
            "Score minus that of the caption, mean ± deviation over texts, averaged over seeds; "
            "share of texts whose score falls, in percent, mean ± deviation over seeds",
            _changes(found),
        ),
    ]
    if exact:
        tables.append(
            Table(
                "The scenes' own variants, one a scene, in percent; mean ± deviation over seeds",
                [
                    {"model": model, **spread_cells(over_seeds([c["scenes"] for c in cells]))}
                    for model, cells in found.items()
                ],
            )
        )
    if "sugarcrepe" in first:
        tables.append(
            Table(
                "SugarCrepe, accuracy in percent; chance is 50, a tie counts against; "
                f"{_counts(first['sugarcrepe'])}; mean ± deviation over seeds",
                _accuracies(found, "sugarcrepe"),
            )
        )
    figures = [
        Figure("change.svg", "Score minus that of the caption, by how much is added or removed"),
        Figure("falls.svg", "Share of texts that score less than the caption"),
    ]
    size = (2.2 * len(first["amounts"]), 3.4)
    save(partial(_draw, found, "mean"), study.path("asymmetry", "change.svg"), size)
    save(partial(_draw, found, "falls"), study.path("asymmetry", "falls.svg"), size)
    return Result("The asymmetry benchmark", tables, figures, _notes(exact))


def measure(
    trained: Trained,
    variants: Sequence[Variants],
    pairs: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """`variant_benchmark`; of scenes also `scenes`, with pairs of SugarCrepe also `sugarcrepe`."""
    rows, evaluator = trained.rows, trained.evaluator
    result = variant_benchmark(evaluator, rows, variants)
    if "negative" in rows.column_names:
        index = trained.caption_to_image
        result["scenes"] = asymmetry_benchmark(evaluator, rows, trained.sim, index)
    if pairs:
        images = [row for several in pairs.values() for row in several]
        evaluator.images.prepare(images, evaluator.batch_size, progress=True)
        result["sugarcrepe"] = sugarcrepe_benchmark(evaluator, pairs)
    return result


def _variants(study: Study, settings: dict[str, Any]) -> list[Variants]:
    """Of the rows asked for, also written down."""
    rows = study.rows()
    captions = rows["captions"][:]
    rng = np.random.default_rng(settings.get("sample_seed", 0))
    chosen = sorted(rng.permutation(len(captions))[: settings.get("rows", 1000)].tolist())
    if "facts" in rows.column_names:
        from ascl_plugin.data.scene_phrases import facts, noun_phrases

        known = [set(each) for each in rows["facts"]]
        found = make_variants(
            captions,
            noun_phrases,
            chosen,
            is_true=lambda row, text: facts(text) <= known[row],
            object_of=str,
        )
    else:
        from ascl_plugin.asymmetry.captions.tagger import Tagger

        found = make_variants(captions, Tagger().noun_phrases, chosen)
    write_json(study.path("asymmetry", "variants.json"), [asdict(each) for each in found])
    return found


def _sugarcrepe(settings: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    if settings.get("sugarcrepe") is None:
        return {}
    from ascl_plugin.data.sugarcrepe import read_sugarcrepe

    return read_sugarcrepe(settings["sugarcrepe"], settings.get("image_root"))


def _counts(kinds: dict[str, dict[str, Any]]) -> str:
    return "texts: " + ", ".join(f"{each['texts']} {kind}" for kind, each in kinds.items())


def _accuracies(found: Cells, part: str) -> list[dict[str, Any]]:
    return [
        {"model": model}
        | spread_cells(
            over_seeds([{k: v["accuracy"] for k, v in cell[part].items()} for cell in cells])
        )
        for model, cells in found.items()
    ]


def _ranks(found: Cells) -> list[dict[str, Any]]:
    rows = []
    for model, cells in found.items():
        for kind, one in cells[0]["positives"].items():
            seeds = [{name: cell["positives"][kind][name] for name in RANKS} for cell in cells]
            spreads = spread_cells(over_seeds(seeds))
            row = {"model": model, "positive": kind, "texts": one["texts"]}
            rows.append(row | {title: spreads[name] for name, title in RANKS.items()})
    return rows


def _changes(found: Cells) -> list[dict[str, Any]]:
    rows = []
    for model, cells in found.items():
        for done, steps in cells[0]["amounts"].items():
            for amount in range(1, len(steps)):
                seeds = [cell["amounts"][done][amount] for cell in cells]
                change = f"{np.mean([each['mean'] for each in seeds]):+.3f}"
                if seeds[0]["deviation"] is not None:
                    change += f" ± {np.mean([each['deviation'] for each in seeds]):.3f}"
                falls = over_seeds([{"falls": each["falls"]} for each in seeds])
                rows.append(
                    {
                        "model": model,
                        "what is done": done,
                        "amount": amount,
                        "texts": seeds[0]["texts"],
                        "change": change,
                        **spread_cells(falls),
                    }
                )
    return rows


def _draw(found: Cells, value: str, axes: Axes) -> None:
    first = next(iter(found.values()))[0]["amounts"]
    places = panels(axes, len(first))
    for place in places[1:]:
        place.sharey(places[0])
    for place, (done, steps) in zip(places, first.items(), strict=True):
        series: dict[str, list[Spread]] = {}
        for model, cells in found.items():
            by_amount = zip(*(cell["amounts"][done] for cell in cells), strict=True)
            series[model] = [
                over_seeds([{value: s[value]} for s in same])[value] for same in by_amount
            ]
        lines(place, range(len(steps)), series)
        place.set_xlabel(done)
        place.set_xticks(range(len(steps)))
        place.tick_params(labelleft=place is places[0])
    places[0].set_ylabel("change of the score" if value == "mean" else "score falls, percent")
    legend(place)


def _notes(exact: bool) -> list[str]:
    truth = (
        "Scenes: what a text says is known, and every negative is false, every positive true."
        if exact
        else "A phrase is false when no caption of the image names its object, or another name of "
        "it; what is in the picture and in no caption passes for absent. Sentences are made by "
        "rules and may read oddly, positives as well as negatives."
    )
    return [
        truth,
        "`add` is longer than the caption, so a scorer that dislikes length wins it. `add, richer` "
        "holds two sentences against each other that differ in the phrase added alone.",
        "Variants are of an image's first caption, the same for all models and seeds: "
        "variants.json. The rank is that of the image for the text, ties against.",
    ]
