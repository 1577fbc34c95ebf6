"""Sections of a report on runs: results, intervals, how runs differ, what each one is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ascl_plugin.metrics.result_row import ResultRow, SplitResults
from ascl_plugin.report.document import Section
from ascl_plugin.report.names import ASYMMETRY, ASYMMETRY_NOTES, RANKING, RECALLS
from ascl_plugin.report.read import Run
from ascl_plugin.report.table import Cell, Table, interval_cells, result_cells, spread_cells

_FURTHER = {
    "i2t_medr": "I2T medR",
    "t2i_medr": "T2I medR",
    "i2t_meanr": "I2T meanR",
    "t2i_meanr": "T2I meanR",
    "i2t_map_at_r": "I2T mAP@R",
    "i2t_r_precision": "I2T R-precision",
    **RANKING,
}
# options that change no result, or that the report shows elsewhere
_NO_MATTER = {
    "output_dir", "resume", "resume_auto", "cache_dir", "cache_images", "cache_texts",
    "num_workers", "log_with",
    "log_every", "save_every", "save_scores", "eval_batch_size", "num_threads",
}  # fmt: skip
_SCENES = ("scenes_train", "scenes_val", "scenes_test", "scenes_seed")
_DATA = ("data_root", "annotations", "image_root", "region_files", "pooled_files")
_Measured = tuple[Run, SplitResults]


def about_section(runs: Sequence[Run]) -> Section:
    """Return what each run is, and the raw files of all."""
    rows: list[dict[str, Cell]] = [
        {
            "run": run.name,
            "data": data_name(run),
            "seed": run.seed,
            "best epoch": run.best.get("epoch"),
        }
        for run in runs
    ]
    return Section(
        "Runs",
        commands={run.name: run.command for run in runs if run.command},
        tables=[Table("Runs of this report", rows).folded("data", "seed")],
        notes=["The best epoch is that of the highest Rsum on the validation split."],
        files={f"{run.name}/{name}": path for run in runs for name, path in run.files.items()},
    )


def run_sections(runs: Sequence[Run]) -> list[Section]:
    """Return a section of results for each split of each data set, and one on how runs differ."""
    sections: list[Section] = []
    explained = False
    for (data, split, protocol), found in _groups(runs).items():
        title = f"Results on {data}, {split}" + ("" if protocol == "full" else f", {protocol}")
        section = Section(title, tables=_tables(found, f"{split}, {data}, protocol {protocol}"))
        if any(row.transductive for _, results in found for row in results.rows):
            section.notes = [
                "Transductive: a query's result depends on the other queries of the split."
            ]
        if not sections:
            section.notes = [f"{RECALLS}.", *section.notes]
        if any(results.asymmetry for _, results in found) and not explained:
            section.notes, explained = [*section.notes, *ASYMMETRY_NOTES], True
        sections.append(section)
    if len(runs) > 1 and (differing := _options(runs)):
        note = "An option that a run does not have is left blank."
        sections.append(Section("Options that differ between runs", tables=differing, notes=[note]))
    return sections


def headline(runs: Sequence[Run]) -> str:
    """Return a sentence: the best run of each data set and split, its interval, and the next best.

    The next best is of other options than the seed and the run that training started from. Rows
    that leak are left out; re-ranked ones, which are transductive, stand behind.
    """
    found = []
    for (data, split, protocol), several in _groups(runs).items():
        plain = [
            (row.metrics["rsum"], run, row, results)
            for run, results in several
            for row in results.rows
            if "rsum" in row.metrics and not (row.leaks or row.transductive)
        ]
        if protocol != "full" or not plain:
            continue
        (best, first, row, results), *rest = sorted(plain, key=lambda one: -one[0])
        others = [one for one in rest if _but_seed(one[1]) != _but_seed(first)]
        low, high = row.intervals.get("rsum", (None, None))
        text = f"{data}, {split}: {first.name} has Rsum {best:.1f}"
        text += "" if low is None else f" (95% {low:.1f} to {high:.1f})"
        text += f", against {others[0][0]:.1f} of {others[0][1].name}" if others else ""
        again = [r for r in results.rows if r.transductive and not r.leaks and "rsum" in r.metrics]
        if again:
            text += f"; {max(r.metrics['rsum'] for r in again):.1f} re-ranked"
        found.append(text)
    return "".join(f"{text}. " for text in found)


def data_name(run: Run) -> str:
    """Return the data root's last folder."""
    root = run.options.get("data_root")
    return "drawn scenes" if root is None else Path(str(root)).name


def _groups(runs: Sequence[Run]) -> dict[tuple[str, str, str], list[_Measured]]:
    """Return results that may be compared: of the same data, split and protocol.

    Data sets of one name that differ (other files, another number of scenes) are numbered.
    """
    numbers: dict[str, list[list[str]]] = {}
    found: dict[tuple[str, str, str], list[_Measured]] = {}
    for run in runs:
        data = data_name(run)
        names = _DATA if run.options.get("data_root") is not None else _DATA + _SCENES
        key = [str(run.options.get(name)) for name in names]
        known = numbers.setdefault(data, [])
        if key not in known:
            known.append(key)
        if number := known.index(key):
            data += f" ({number + 1})"
        for split, results in run.measured:
            found.setdefault((data, split, results.protocol), []).append((run, results))
    return found


def _tables(found: Sequence[_Measured], of: str) -> list[Table]:
    every = [(run, row) for run, results in found for row in results.rows]
    tables = [
        _table(f"Recall in percent: {of}", ((*one, result_cells(one[1].metrics)) for one in every)),
        _table(f"Mean ± deviation over seeds: {of}", _seeds(found)),
        _table(
            f"95% intervals, bootstrap over images: {of}",
            ((run, row, result_cells(interval_cells(row.intervals))) for run, row in every),
            closed=True,
        ),
        _table(
            f"Ranks and precision: {of}",
            ((run, row, _titled(row.metrics, _FURTHER)) for run, row in every),
            digits=None,
            closed=True,
        ),
        Table(
            f"Asymmetry benchmark, percent: {of}",
            [
                {"run": run.name, **_titled(results.asymmetry, ASYMMETRY), "seed": run.seed}
                for run, results in found
                if results.asymmetry
            ],
            digits=1,
        ),
    ]
    return [table for table in tables if table.rows]


def _table(
    caption: str,
    found: Iterable[tuple[Run, ResultRow, Mapping[str, Cell]]],
    digits: int | None = 1,
    closed: bool = False,
) -> Table:
    """Return cells of rows, with the facts that numbers are to be read with; no cells, no row."""
    rows: list[dict[str, Cell]] = []
    leaks: list[int] = []
    for run, row, cells in found:
        if cells:
            leaks += [len(rows)] if row.leaks else []
            facts = {"seed": run.seed, "transductive": row.transductive}
            rows.append({"run": run.name, "result": row.name, **cells, **facts})
    return Table(caption, rows, digits, leaks, closed).folded("seed", "transductive")


def _titled(metrics: Mapping[str, float], titles: Mapping[str, str]) -> dict[str, Cell]:
    return {title: metrics[key] for key, title in titles.items() if key in metrics}


def _seeds(found: Sequence[_Measured]) -> list[tuple[Run, ResultRow, Mapping[str, Cell]]]:
    """Return rows of runs that differ in nothing but their seed."""
    alike: dict[str, list[_Measured]] = {}
    for run, results in found:
        alike.setdefault(_but_seed(run), []).append((run, results))
    rows: list[tuple[Run, ResultRow, Mapping[str, Cell]]] = []
    for members in alike.values():
        if len({run.seed for run, _ in members}) < 2:
            continue
        together = replace(
            members[0][0],
            name=", ".join(run.name for run, _ in members),
            seed=", ".join(str(run.seed) for run, _ in members),
        )
        by_name = [{row.name: row.metrics for row in results.rows} for _, results in members]
        for row in members[0][1].rows:
            several = [result_cells(one.get(row.name, {})) for one in by_name]
            shared = [title for title in several[0] if all(title in one for one in several)]
            cells = spread_cells([{title: one[title] for title in shared} for one in several])
            rows.append((together, row, cells))
    return rows


def _but_seed(run: Run) -> str:
    """Return what runs that differ in their seed alone share: options, or a name without any."""
    left_out = {*_NO_MATTER, "seed", "start_from"}
    options = {k: v for k, v in run.options.items() if k not in left_out}
    return repr(sorted(options.items())) if options else run.name


def _dotted(options: Mapping[str, object]) -> dict[str, object]:
    """Return options of components as `fusion.num_heads`, their name as `fusion`."""
    flat: dict[str, object] = {}
    for name, value in options.items():
        inner = value if isinstance(value, dict) else {"name": value}
        flat |= {name if key == "name" else f"{name}.{key}": one for key, one in inner.items()}
    return flat


def _options(runs: Sequence[Run]) -> list[Table]:
    rows = []
    options = [_dotted(run.options) for run in runs]
    for name in dict.fromkeys(name for one in options for name in one):
        values = [one.get(name) for one in options]
        if name.partition(".")[0] not in _NO_MATTER and len(set(map(repr, values))) > 1:
            cells = ["" if value is None else str(value) for value in values]
            names = [run.name for run in runs]
            rows.append({"option": name} | dict(zip(names, cells, strict=True)))
    return [Table("One option a row, one run a column", rows)] if rows else []
