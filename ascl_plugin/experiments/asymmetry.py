"""The asymmetry benchmark on the models of a study: the claim of the papers' Figure 1, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from ascl_plugin.asymmetry.captions.balanced import BalancedPair
from ascl_plugin.asymmetry.captions.variants import Variants
from ascl_plugin.disk import write_json
from ascl_plugin.experiments.plan import Settings
from ascl_plugin.experiments.study import Study, Trained, cells_of
from ascl_plugin.interfaces import Row
from ascl_plugin.metrics.statistics import Spread, over_seeds
from ascl_plugin.report.document import Figure, Section
from ascl_plugin.report.plots import legend, lines, panels, save
from ascl_plugin.report.table import Cell, Table, blind_beside, spread_cells, with_blind
from ascl_plugin.retrieval.asymmetry_benchmark import (
    asymmetry_benchmark,
    balanced_benchmark,
    variant_benchmark,
)
from ascl_plugin.retrieval.contest_benchmark import contest_benchmark
from ascl_plugin.retrieval.suites import balanced_of, variants_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Model -> the plain values of `measure` with each seed.
Found = Mapping[str, Sequence[Settings]]

RANKS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medr": "median rank", "meanr": "mean rank"}
_SPREAD = "mean ± deviation over seeds"
_BLIND = "blind: the mean image in place of each"


def experiment(study: Study, settings: Settings) -> Section:
    """Return accuracies with and without the image, rank of positives, score by amount of change.

    Args:
        study: at least one model.
        settings: `models`, by default all; `rows`, the number of images whose captions are varied
            (1,000; each is ranked among all); `balanced`, pairs of images of each kind of balanced
            half-truths (by default one for each image, where there is one); `sugarcrepe`, a folder
            or file of its layout, and `image_root` of its images.

    Raises:
        ImportError: real captions, and no tagger (extra `words`).
    """
    variants, pairs = cache(partial(_variants, study, settings)), cache(partial(_pairs, settings))
    balanced = cache(partial(_balanced, study, settings))
    models = settings.get("models") or list(study.models)
    found = cells_of(
        study,
        "asymmetry",
        models,
        study.seeds,
        lambda run: measure(run, variants(), pairs(), balanced()),
    )
    first = found[models[0]][0]
    tables = [
        Table(
            "Balanced half-truths, in percent: two texts, two images, each text truer of one; "
            "without the image pairs are 50 and groups 0; "
            f"{_counts(first['balanced'], 'count', 'groups')}; {_SPREAD}",
            _contests(found, "kind", lambda cell: cell["balanced"], ("pairs", "groups", "blind")),
        ),
        Table(
            f"Accuracy against negatives, in percent; a tie counts against; {_BLIND}; "
            f"{_counts(first['negatives'])}; {_SPREAD}",
            _contests(found, "negative", lambda cell: with_blind(cell["negatives"])),
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
        caption = f"The scenes' own variants, one a scene, in percent; {_BLIND}; {_SPREAD}"
        of_scenes = _contests(
            found, "contest", lambda cell: with_blind(blind_beside(cell["scenes"]))
        )
        tables.append(Table(caption, of_scenes))
        caption = f"R@1 of the scene among all for its own variants, in percent; {_SPREAD}"
        tables.append(Table(caption, _recalls(found)))
    if "sugarcrepe" in first:
        caption = (
            f"SugarCrepe, accuracy in percent; a tie counts against; {_BLIND}; "
            f"{_counts(first['sugarcrepe'])}; {_SPREAD}"
        )
        rows = _contests(found, "kind", lambda cell: with_blind(cell["sugarcrepe"]))
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
    trained: Trained,
    variants: Sequence[Variants],
    pairs: Mapping[str, Sequence[Row]],
    balanced: Sequence[BalancedPair],
) -> Settings:
    """Return `variant_benchmark` and `balanced`; `scenes` and `sugarcrepe` if there are any."""
    rows, evaluator = trained.rows, trained.evaluator
    result = variant_benchmark(evaluator, rows, variants)
    result["balanced"] = balanced_benchmark(evaluator, rows, balanced)
    if "negative" in getattr(rows, "column_names", ()):
        index = trained.caption_to_image
        result["scenes"] = asymmetry_benchmark(evaluator, rows, trained.sim, index)
    if pairs:
        images = [row for several in pairs.values() for row in several]
        evaluator.images.prepare(images, evaluator.batch_size, progress=True)
        result["sugarcrepe"] = contest_benchmark(evaluator, pairs)
    return result


def _variants(study: Study, settings: Settings) -> list[Variants]:
    """Make variants of the rows asked for, and write them to a file."""
    rows = study.rows()
    rng = np.random.default_rng(0)
    chosen = sorted(rng.permutation(len(rows))[: settings.get("rows", 1000)].tolist())
    found = variants_of(rows, chosen)
    write_json(study.path("asymmetry", "variants.json"), [asdict(each) for each in found])
    return found


def _balanced(study: Study, settings: Settings) -> list[BalancedPair]:
    """Draw balanced half-truths, and write them to a file."""
    found = balanced_of(study.rows(), settings.get("balanced"))
    write_json(study.path("asymmetry", "balanced.json"), [asdict(each) for each in found])
    return found


def _pairs(settings: Settings) -> Mapping[str, Sequence[Row]]:
    if settings.get("sugarcrepe") is None:
        return {}
    from ascl_plugin.data.contests import read_contests

    return read_contests(settings["sugarcrepe"], "sugarcrepe", settings.get("image_root"))


def _counts(kinds: Mapping[str, Mapping[str, Cell]], of: str = "texts", name: str = "texts") -> str:
    return f"{name}: " + ", ".join(f"{each[of]} {kind}" for kind, each in kinds.items())


def _contests(
    found: Found,
    title: str,
    of: Callable[[Settings], Mapping[str, Mapping[str, float]]],
    columns: Sequence[str] = ("accuracy", "blind", "difference"),
) -> list[dict[str, Cell]]:
    """Return a row for each model and contest."""
    rows: list[dict[str, Cell]] = []
    for model, cells in found.items():
        for contest in of(cells[0]):
            seeds = [{name: of(cell)[contest][name] for name in columns} for cell in cells]
            rows.append({"model": model, title: contest, **spread_cells(seeds)})
    return rows


def _recalls(found: Found) -> list[dict[str, Cell]]:
    names = {"caption_r1": "caption", "richer_r1": "richer", "shorter_r1": "shorter"}
    return [
        {
            "model": model,
            **spread_cells(
                [{title: cell["scenes"][name] for name, title in names.items()} for cell in cells]
            ),
        }
        for model, cells in found.items()
    ]


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
        "`add` is longer than the caption, so a scorer that dislikes length wins it without the "
        "picture. An accuracy says as much about pictures as it exceeds its blind column; "
        "balanced half-truths cannot be won without them.",
        "Variants are of an image's first caption, the same for all models and seeds: "
        "variants.json, balanced.json. The rank is that of the image for the text, ties against.",
    ]
