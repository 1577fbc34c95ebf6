"""The asymmetry benchmark on the models of a study: the claim of the papers' Figure 1, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from ascl_plugin.asymmetry.captions.variants import Variants, make_variants
from ascl_plugin.disk import write_json
from ascl_plugin.experiments.plan import Settings
from ascl_plugin.experiments.study import Study, Trained, cells_of
from ascl_plugin.interfaces import Row
from ascl_plugin.metrics.statistics import Spread, over_seeds
from ascl_plugin.report.document import Figure, Section
from ascl_plugin.report.plots import legend, lines, panels, save
from ascl_plugin.report.table import Cell, Table, spread_cells
from ascl_plugin.retrieval.asymmetry_benchmark import (
    asymmetry_benchmark,
    sugarcrepe_benchmark,
    variant_benchmark,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Model -> the plain values of `measure` with each seed.
Found = Mapping[str, Sequence[Settings]]

RANKS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medr": "median rank", "meanr": "mean rank"}
_SPREAD = "mean ± deviation over seeds"


def experiment(study: Study, settings: Settings) -> Section:
    """Return accuracy against negatives, rank of positives, and score by amount of change.

    Args:
        study: at least one model.
        settings: `models`, by default all; `rows`, the number of images whose captions are varied
            (1,000; each is ranked among all); `sugarcrepe`, a folder or file of `read_sugarcrepe`,
            and `image_root` of its images.

    Raises:
        ImportError: real captions, and no tagger (extra `words`).
    """
    variants, pairs = cache(partial(_variants, study, settings)), cache(partial(_pairs, settings))
    models = settings.get("models") or list(study.models)
    found = cells_of(
        study, "asymmetry", models, study.seeds, lambda run: measure(run, variants(), pairs())
    )
    first = found[models[0]][0]
    tables = [
        Table(
            "Accuracy against negatives, in percent; chance is 50, a tie counts against; "
            f"{_counts(first['negatives'])}; {_SPREAD}",
            _accuracies(found, lambda cell: _accuracy(cell["negatives"])),
        ),
        Table(
            f"Rank of the image among all for positives, recalls in percent; {_SPREAD}",
            _ranks(found),
        ),
        Table(
            "Score minus that of the caption, mean ± deviation over texts, averaged over seeds; "
            f"share of texts whose score falls, in percent, {_SPREAD}",
            _changes(found),
        ),
    ]
    if "scenes" in first:
        caption = f"The scenes' own variants, one a scene, in percent; {_SPREAD}"
        tables.append(Table(caption, _accuracies(found, lambda cell: cell["scenes"])))
    if "sugarcrepe" in first:
        caption = (
            "SugarCrepe, accuracy in percent; chance is 50, a tie counts against; "
            f"{_counts(first['sugarcrepe'])}; {_SPREAD}"
        )
        rows = _accuracies(found, lambda cell: _accuracy(cell["sugarcrepe"]))
        tables.append(Table(caption, rows))
    figures = []
    for value, name, caption in (
        ("mean", "change", "Score minus that of the caption, by how much is added or removed"),
        ("falls", "falls", "Share of texts that score less than the caption"),
    ):
        path = study.path("asymmetry", f"{name}.svg")
        save(partial(_draw, found, value), path, (2.2 * len(first["amounts"]), 3.4))
        figures.append(Figure(path, caption))
    return Section(
        "The asymmetry benchmark", tables=tables, figures=figures, notes=_notes("scenes" in first)
    )


def measure(
    trained: Trained, variants: Sequence[Variants], pairs: Mapping[str, Sequence[Row]]
) -> Settings:
    """Return `variant_benchmark`, for scenes also `scenes`, and with pairs also `sugarcrepe`."""
    rows, evaluator = trained.rows, trained.evaluator
    result = variant_benchmark(evaluator, rows, variants)
    if "negative" in getattr(rows, "column_names", ()):
        index = trained.caption_to_image
        result["scenes"] = asymmetry_benchmark(evaluator, rows, trained.sim, index)
    if pairs:
        images = [row for several in pairs.values() for row in several]
        evaluator.images.prepare(images, evaluator.batch_size, progress=True)
        result["sugarcrepe"] = sugarcrepe_benchmark(evaluator, pairs)
    return result


def _variants(study: Study, settings: Settings) -> list[Variants]:
    """Make variants of the rows asked for, and write them to a file."""
    rows = study.rows()
    captions = rows["captions"][:]
    rng = np.random.default_rng(0)
    chosen = sorted(rng.permutation(len(captions))[: settings.get("rows", 1000)].tolist())
    if "facts" in getattr(rows, "column_names", ()):
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


def _pairs(settings: Settings) -> Mapping[str, Sequence[Row]]:
    if settings.get("sugarcrepe") is None:
        return {}
    from ascl_plugin.data.sugarcrepe import read_sugarcrepe

    return read_sugarcrepe(settings["sugarcrepe"], settings.get("image_root"))


def _counts(kinds: Mapping[str, Mapping[str, Cell]]) -> str:
    return "texts: " + ", ".join(f"{each['texts']} {kind}" for kind, each in kinds.items())


def _accuracies(
    found: Found, of: Callable[[Settings], Mapping[str, float]]
) -> list[dict[str, Cell]]:
    return [
        {"model": model, **spread_cells([of(cell) for cell in cells])}
        for model, cells in found.items()
    ]


def _accuracy(kinds: Mapping[str, Settings]) -> dict[str, float]:
    return {kind: one["accuracy"] for kind, one in kinds.items()}


def _ranks(found: Found) -> list[dict[str, Cell]]:
    rows = []
    for model, cells in found.items():
        for kind, one in cells[0]["positives"].items():
            seeds = [
                {title: cell["positives"][kind][name] for name, title in RANKS.items()}
                for cell in cells
            ]
            row = {"model": model, "positive": kind, "texts": one["texts"]}
            rows.append(row | spread_cells(seeds))
    return rows


def _changes(found: Found) -> list[dict[str, Cell]]:
    rows = []
    for model, cells in found.items():
        for done, steps in cells[0]["amounts"].items():
            for amount in range(1, len(steps)):
                seeds = [cell["amounts"][done][amount] for cell in cells]
                change = f"{np.mean([each['mean'] for each in seeds]):+.3f}"
                if seeds[0]["deviation"] is not None:
                    change += f" ± {np.mean([each['deviation'] for each in seeds]):.3f}"
                row = {"model": model, "what is done": done, "amount": amount}
                row |= {"texts": seeds[0]["texts"], "change": change}
                rows.append(row | spread_cells([{"falls": each["falls"]} for each in seeds]))
    return rows


def _draw(found: Found, value: str, axes: Axes) -> None:
    first = next(iter(found.values()))[0]["amounts"]
    places = panels(axes, len(first))
    for place, (done, steps) in zip(places, first.items(), strict=True):
        series: dict[str, list[Spread]] = {}
        for model, cells in found.items():
            by_amount = zip(*(cell["amounts"][done] for cell in cells), strict=True)
            series[model] = [
                over_seeds([{value: s[value]} for s in same])[value] for same in by_amount
            ]
        if place is not places[0]:
            place.sharey(places[0])
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
        "it; an object that is in the picture and in no caption passes for absent. Sentences are "
        "made by rules and may read oddly, positives as well as negatives."
    )
    return [
        truth,
        "`add` is longer than the caption, so a scorer that dislikes length wins it. `add, richer` "
        "holds two sentences against each other that differ in the phrase added alone.",
        "Variants are of an image's first caption, the same for all models and seeds: "
        "variants.json. The rank is that of the image for the text, ties against.",
    ]
