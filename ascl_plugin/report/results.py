"""Runs as sections of a report: results, intervals, how runs differ, what each one is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ascl_plugin.metrics.statistics import over_seeds
from ascl_plugin.report.document import Section, Table
from ascl_plugin.report.read import Measured, Run
from ascl_plugin.report.tables import RESULT_COLUMNS, interval_cells, spread_cells
from ascl_plugin.reranking import neighbors as oracle

_FURTHER = {
    "i2t_medr": "I2T medR",
    "t2i_medr": "T2I medR",
    "i2t_meanr": "I2T meanR",
    "t2i_meanr": "T2I meanR",
    "i2t_map_at_r": "I2T mAP@R",
    "i2t_r_precision": "I2T R-precision",
}
_ASYMMETRY = {
    "asym1_caption": "caption > negative",
    "asym1_richer": "richer > negative",
    "asym1_shorter": "shorter > negative",
    "caption_r1": "caption R@1",
    "richer_r1": "richer R@1",
    "shorter_r1": "shorter R@1",
}
# options that change no result, or are told elsewhere
_NO_MATTER = {
    "output_dir", "resume", "cache_dir", "cache_images", "cache_texts", "num_workers", "log_with",
    "log_every", "save_every", "save_scores", "eval_batch_size", "num_threads",
}  # fmt: skip
_DATA = (
    "data_root", "annotations", "image_root", "region_files", "pooled_files", "scenes_train",
    "scenes_val", "scenes_test", "scenes_seed",
)  # fmt: skip
_Found = tuple[Run, Measured]


def run_sections(runs: Sequence[Run]) -> list[Section]:
    """One section of results for each split of each data set, then one on how the runs differ."""
    sections = []
    for (data, split, protocol), found in _groups(runs).items():
        title = f"Results on {data}, {split}" + ("" if protocol == "full" else f", {protocol}")
        section = Section(title, tables=_tables(found, f"{split}, {data}, protocol {protocol}"))
        if any("reranked" in m.rows for _, m in found):
            section.notes.append(
                "Transductive: a query's result depends on the other queries of the split."
            )
        sections.append(section)
    if len(runs) > 1 and (differing := _options(runs)):
        note = "An option that a run does not have is left blank."
        sections.append(Section("Options that differ between runs", tables=differing, notes=[note]))
    return sections


def about_section(runs: Sequence[Run]) -> Section:
    """What each run is, and the raw files of all."""
    rows = [
        {
            "run": run.name,
            "data": data_name(run),
            "seed": run.seed,
            "model": "single",
            "best epoch": run.best.get("epoch"),
        }
        for run in runs
    ]
    files = {f"{run.name}/{name}": path for run in runs for name, path in run.files.items()}
    note = "The best epoch is that of the highest Rsum on the validation split."
    commands = {run.name: run.command for run in runs if run.command}
    tables = [Table("Runs of this report", rows)]
    return Section("Runs", commands, tables=tables, notes=[note], files=files)


def data_name(run: Run) -> str:
    """The data root's last folder; scenes are told by how many there are."""
    root = run.options.get("data_root")
    if root is not None:
        return Path(str(root)).name
    return "drawn scenes"


def _groups(runs: Sequence[Run]) -> dict[tuple[str, str, str], list[_Found]]:
    """Results that may be compared: of the same data, split and protocol.

    Data sets of one name that differ (other files, another number of scenes) are numbered.
    """
    numbers: dict[str, list[tuple]] = {}
    found: dict[tuple[str, str, str], list[_Found]] = {}
    for run in runs:
        data = data_name(run)
        key = tuple(str(run.options.get(name)) for name in _DATA)
        if run.options.get("data_root") is not None:
            key = tuple(
                "" if name.startswith("scenes_") else value
                for name, value in zip(_DATA, key, strict=True)
            )
        known = numbers.setdefault(data, [])
        if key not in known:
            known.append(key)
        number = known.index(key)
        data += f" ({number + 1})" if number else ""
        for measured in run.measured:
            found.setdefault((data, measured.split, measured.protocol), []).append((run, measured))
    return found


def _tables(found: Sequence[_Found], of: str) -> list[Table]:
    tables = [Table(f"Recall in percent: {of}", _rows(found, RESULT_COLUMNS), digits=1)]
    if seeds := _seeds(found):
        tables.append(Table(f"Mean ± deviation over seeds: {of}", seeds))
    if len({run.name for run, _ in found}) > 1:
        caption = f"Differences to {found[0][0].name}: {of}"
        tables.append(Table(caption, _differences(found)))
    intervals = [
        _told(run, name, {title: cells.get(key) for key, title in RESULT_COLUMNS.items()})
        for run, measured in found
        for name, cells in ((n, interval_cells(i)) for n, i in measured.intervals.items())
    ]
    if intervals:
        tables.append(Table(f"95% intervals, bootstrap over images: {of}", intervals))
    if further := _rows(found, _FURTHER):
        tables.append(Table(f"Ranks and precision: {of}", further))
    asymmetry: list[dict[str, Any]] = [
        {"run": run.name}
        | {title: measured.asymmetry.get(key) for key, title in _ASYMMETRY.items()}
        | {"seed": run.seed}
        for run, measured in found
        if measured.asymmetry
    ]
    if asymmetry:
        tables.append(Table(f"Asymmetry benchmark, percent: {of}", asymmetry, digits=1))
    return tables


def _told(run: Run, row: str, cells: dict[str, Any]) -> dict[str, Any]:
    """Numbers of one row, and what every number is to be read with."""
    transductive = "yes" if row in ("reranked", oracle.ROW) else "no"
    told = {"seed": run.seed, "model": "single", "transductive": transductive}
    return {"run": run.name, "result": row, **cells, **told}


def _rows(found: Sequence[_Found], columns: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    for run, measured in found:
        for name, metrics in measured.rows.items():
            cells = {t: metrics[k] for k, t in columns.items() if k in metrics}
            if cells:
                rows.append(_told(run, name, cells))
    return rows


def _differences(found: Sequence[_Found]) -> list[dict[str, Any]]:
    """Each run minus the first, row by row."""
    first = found[0][1].rows
    return [
        {"run": run.name, "result": name}
        | {
            title: _signed(metrics[key] - first[name][key])
            for key, title in RESULT_COLUMNS.items()
            if key in metrics and key in first[name]
        }
        for run, measured in found[1:]
        for name, metrics in measured.rows.items()
        if name in first
    ]


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return text if float(text) else "0.0"


def _seeds(found: Sequence[_Found]) -> list[dict[str, Any]]:
    """Rows of runs that differ in nothing but their seed."""
    alike: dict[str, list[_Found]] = {}
    for run, measured in found:
        options = {k: v for k, v in run.options.items() if k not in {*_NO_MATTER, "seed"}}
        key = repr(sorted(options.items())) if options else run.name
        alike.setdefault(key, []).append((run, measured))
    rows = []
    for members in alike.values():
        if len({run.seed for run, _ in members}) < 2:
            continue
        for name in members[0][1].rows:
            metrics = [measured.rows.get(name, {}) for _, measured in members]
            shared = {k: t for k, t in RESULT_COLUMNS.items() if all(k in row for row in metrics)}
            if shared:
                spread = spread_cells(over_seeds([{k: row[k] for k in shared} for row in metrics]))
                cells = {title: spread[k] for k, title in shared.items()}
                runs = ", ".join(run.name for run, _ in members)
                seeds = ", ".join(str(run.seed) for run, _ in members)
                rows.append(_told(members[0][0], name, cells) | {"run": runs, "seed": seeds})
    return rows


def _options(runs: Sequence[Run]) -> list[Table]:
    names = list(dict.fromkeys(name for run in runs for name in run.options))
    differing = [
        name
        for name in names
        if name not in _NO_MATTER and len({repr(run.options.get(name)) for run in runs}) > 1
    ]
    if not differing:
        return []
    rows = []
    for name in differing:
        row = {"option": name}
        for run in runs:
            value = run.options.get(name)
            row[run.name] = "" if value is None else str(value)
        rows.append(row)
    return [Table("One option a row, one run a column", rows)]
