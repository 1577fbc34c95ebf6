"""The whole report on folders, before it has a format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ascl_plugin.report.curves import training_curves
from ascl_plugin.report.document import Document, Section
from ascl_plugin.report.read import read_folders
from ascl_plugin.report.results import about_section, headline, run_sections


def build_report(
    folders: Sequence[Path], title: str | None = None, drawings: Path | None = None
) -> Document:
    """Return the report on runs and studies.

    Args:
        folders: as `read_folders` takes them.
        title: the title of the page; None: one that names the folders.
        drawings: the folder that training curves are drawn into; None draws none.
    """
    runs, experiments = read_folders(folders)
    sections = [about_section(runs), *run_sections(runs)] if runs else []
    if drawings is not None and (curves := training_curves(runs, drawings)):
        sections.append(Section("Training curves", figures=curves))
    counts = [
        f"{len(several)} {noun}{'s' if len(several) > 1 else ''}"
        for several, noun in ((runs, "run"), (experiments, "experiment"))
        if several
    ]
    lead = f"{headline(runs)}{' and '.join(counts)}. Recalls are in percent; a single model each."
    title = title or "Report on " + ", ".join(folder.resolve().name for folder in folders)
    return Document(title, lead, [*sections, *experiments])
