"""What an experiment gives: tables, figures, notes, cases; as JSON and as Markdown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ascl_plugin.disk import write_text
from ascl_plugin.report.metrics_file import write_json
from ascl_plugin.report.tables import markdown_table


@dataclass(frozen=True)
class Table:
    """Rows of one table, column to cell; what a row lacks stays blank."""

    caption: str
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """A picture in the experiment's folder; `NAME.dark.SUFFIX` beside it is for a dark page."""

    file: str
    caption: str


@dataclass(frozen=True)
class Result:
    """All that an experiment tells."""

    title: str
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cases: list[dict[str, Any]] = field(default_factory=list)

    def markdown(self, made_by: str) -> str:
        """Title, tables, figures and notes; `made_by` says command, seeds and split."""
        parts = [f"## {self.title}", made_by]
        for table in self.tables:
            parts += [f"**{table.caption}**", markdown_table(table.rows)]
        parts += [f"![{figure.caption}]({figure.file})" for figure in self.figures]
        parts += [f"- {note}" for note in self.notes]
        return "\n\n".join(parts) + "\n"


def write_result(folder: Path, result: Result, made_by: dict[str, Any]) -> None:
    """`result.json` and `result.md` in `folder`, with how they were made."""
    write_json(folder / "result.json", {**asdict(result), **made_by})
    seeds = ", ".join(map(str, made_by["seeds"]))
    line = f"`{made_by['command']}`; split {made_by['split']}; seeds {seeds}; single models."
    write_text(folder / "result.md", result.markdown(line))
