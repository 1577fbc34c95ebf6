"""What a report holds, before it is HTML, Markdown or LaTeX."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Table:
    """Rows under a caption.

    Attributes:
        caption: what is measured, of what.
        rows: column to value; a column that a row lacks is left blank.
        digits: after the point of floats; None chooses for each column by its size.
    """

    caption: str
    rows: list[dict[str, Any]]
    digits: int | None = None

    @property
    def columns(self) -> list[str]:
        """All columns, in order of first appearance."""
        return list(dict.fromkeys(column for row in self.rows for column in row))


@dataclass
class Figure:
    """A drawing in a file, and the one for a dark page where there is one."""

    caption: str
    light: Path
    dark: Path | None = None


@dataclass
class Section:
    """A part of the report under a heading.

    Attributes:
        title: the heading.
        commands: name to the command that made it.
        facts: name to text: seeds, split.
        tables, figures, notes: in this order on the page.
        cases: queries and their answers, as `ascl_plugin.experiments.cases` writes them.
        folder: where the pictures of the cases lie.
        files: label to raw file.
    """

    title: str
    commands: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cases: list[dict[str, Any]] = field(default_factory=list)
    folder: Path | None = None
    files: dict[str, Path] = field(default_factory=dict)


@dataclass
class Document:
    """The whole report."""

    title: str
    lead: str
    sections: list[Section]
