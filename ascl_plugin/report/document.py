"""The content of a report, before it is HTML, Markdown or LaTeX."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

from ascl_plugin.report.table import Table


@dataclass(frozen=True)
class Figure:
    """A drawing in a file; `NAME.dark.SUFFIX` beside it is for a dark page."""

    path: Path
    caption: str

    @property
    def dark(self) -> Path | None:
        """The drawing for a dark page, if there is one."""
        path = self.path.with_suffix(f".dark{self.path.suffix}")
        return path if path.is_file() else None


class Item(TypedDict):
    """A text, or a picture by its file name in the folder of the section and a text for it."""

    text: str | None
    picture: str | None
    alt: str


class Query(Item):
    """The query of a case."""

    label: str


class Answer(Item):
    """One answer to it."""

    score: float
    right: bool


class Answers(TypedDict):
    """The first answers of one model, before or after re-ranking."""

    model: str
    stage: str
    answers: list[Answer]
    note: str | None


class Case(TypedDict):
    """A query, "i2t" or "t2i", with the answers of several models."""

    way: str
    title: str
    query: Query
    lists: list[Answers]


@dataclass
class Section:
    """A part of the report under a heading.

    Attributes:
        title: the heading.
        commands: name to the command that made it.
        facts: name to text: seeds, split.
        tables, figures, notes, cases: in this order on the page.
        folder: the folder of the pictures of the cases.
        files: label to raw file.
    """

    title: str
    commands: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    cases: Sequence[Case] = ()
    folder: Path | None = None
    files: dict[str, Path] = field(default_factory=dict)


@dataclass
class Document:
    """The whole report."""

    title: str
    lead: str
    sections: list[Section]


def inside(folder: Path | None, name: str) -> Path:
    """Return the path of a file of the folder itself.

    Raises:
        ValueError: no folder, or a name or a link that leaves it.
        FileNotFoundError: no such file.
    """
    if folder is None or Path(name).name != name:
        raise ValueError(f"{folder}/result.json: file {name!r} is not in the experiment's folder")
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, result.json names it")
    if path.resolve().parent != folder.resolve():
        raise ValueError(f"{path}: a link that leaves the experiment's folder, to {path.resolve()}")
    return path


def relative_link(path: Path, folder: Path) -> str:
    """Return the address of `path` on a page that lies in `folder`, percent-encoded.

    >>> from pathlib import Path
    >>> from ascl_plugin.report.document import relative_link
    >>> relative_link(Path("runs/a b/log.jsonl"), Path("reports"))
    '../runs/a%20b/log.jsonl'
    """
    return quote(Path(os.path.relpath(path, folder)).as_posix())
