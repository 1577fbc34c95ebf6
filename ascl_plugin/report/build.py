"""Folders in, the whole report out, before it has a format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from ascl_plugin.report.curves import training_curves
from ascl_plugin.report.document import Document, Figure, Section, Table
from ascl_plugin.report.read import Experiment, Run, read_folders
from ascl_plugin.report.results import about_section, run_sections


def build_report(
    folders: Sequence[Path], title: str | None = None, drawings: Path | None = None
) -> Document:
    """The report on runs and studies.

    Args:
        folders: as `read_folders` takes them.
        title: of the page; None: one that names the folders.
        drawings: folder that training curves are drawn into; None draws none.

    Raises:
        FileNotFoundError, ValueError: as `read_folders`; a figure or picture that is not there.
    """
    runs, experiments = read_folders(folders)
    sections = [about_section(runs), *run_sections(runs)] if runs else []
    if drawings is not None and (curves := training_curves(runs, drawings)):
        sections.append(Section("Training curves", figures=curves))
    sections += [_experiment(found) for found in experiments]
    if title is None:
        title = "Report on " + ", ".join(folder.resolve().name for folder in folders)
    return Document(title, _lead(runs, experiments), sections)


def _lead(runs: Sequence[Run], experiments: Sequence[Experiment]) -> str:
    counts = [
        f"{len(several)} {noun}{'s' if len(several) > 1 else ''}"
        for several, noun in ((runs, "run"), (experiments, "experiment"))
        if several
    ]
    return f"{' and '.join(counts)}. Recalls are in percent; a single model each."


def _experiment(found: Experiment) -> Section:
    result, folder = found.result, found.folder
    seeds = ", ".join(map(str, result.get("seeds", [])))
    told = {"split": result.get("split"), "seeds": seeds}
    return Section(
        title=result["title"],
        commands={"command": str(result["command"])} if result.get("command") else {},
        facts={name: str(value) for name, value in told.items() if value},
        tables=[Table(table["caption"], table["rows"]) for table in result["tables"]],
        figures=[_figure(folder, figure) for figure in result.get("figures", [])],
        notes=list(result.get("notes", [])),
        cases=list(result.get("cases", [])),
        folder=folder,
        files={
            path.name: path
            for path in (folder / "result.json", folder / "result.md")
            if path.is_file()
        },
    )


def _figure(folder: Path, figure: dict[str, str]) -> Figure:
    light = inside(folder, figure["file"])
    dark = light.with_suffix(f".dark{light.suffix}")
    return Figure(figure["caption"], light, inside(folder, dark.name) if dark.is_file() else None)


def inside(folder: Path, name: str) -> Path:
    """A file of the folder itself.

    Raises:
        ValueError: a name that leaves the folder, or a link that does.
        FileNotFoundError: no such file.
    """
    path = folder / name
    if Path(name).name != name:
        raise ValueError(f"{folder}/result.json: file {name!r} is not in the experiment's folder")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, result.json names it")
    if path.resolve().parent != folder.resolve():
        raise ValueError(f"{path}: a link that leaves the experiment's folder, to {path.resolve()}")
    return path


def relative_link(path: Path, folder: Path) -> str:
    """The address of `path` on a page that lies in `folder`, percent-encoded.

    >>> from pathlib import Path
    >>> from ascl_plugin.report.build import relative_link
    >>> relative_link(Path("runs/a b/log.jsonl"), Path("reports"))
    '../runs/a%20b/log.jsonl'
    """
    return quote(Path(os.path.relpath(path, folder)).as_posix())
