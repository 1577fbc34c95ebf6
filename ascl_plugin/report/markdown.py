"""A report as Markdown: the same tables, figures and cases, with links to their files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ascl_plugin.report import cells
from ascl_plugin.report.build import inside, relative_link
from ascl_plugin.report.document import Document, Section, Table

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
# before what would begin a heading, a list, a quotation or a rule
_HEAD = re.compile(r"^\d{1,9}(?=[.)]( |$))|^(?=[#>=]|[-+]([-+ ]|$))")


def markdown_page(document: Document, folder: Path) -> str:
    """The report, as a file that lies in `folder`; HTML in a text stays text."""
    parts = [f"# {_plain(document.title)}", _plain(document.lead)]
    for section in document.sections:
        parts += _section(section, folder)
    return "\n\n".join(parts) + "\n"


def _section(section: Section, folder: Path) -> Iterator[str]:
    yield f"## {_plain(section.title)}"
    told = [f"- {_plain(name)}: {_code(text)}" for name, text in section.commands.items()]
    told += [f"- {_plain(name)}: {_plain(text)}" for name, text in section.facts.items()]
    if told:
        yield "\n".join(told)
    for table in section.tables:
        yield f"**{_plain(table.caption)}**"
        yield _table(table)
        if cells.table_leaks(table):
            yield f"**LEAK**: {_plain(cells.LEAK_NOTE)}"
    for figure in section.figures:
        yield f"![{_plain(figure.caption)}]({relative_link(figure.light, folder)})"
    if section.notes:
        yield "\n".join(f"- {_plain(note)}" for note in section.notes)
    for case in section.cases:
        yield f"### {_plain(case['title'])}"
        yield f"{_item(case['query'], section, folder)} ({_plain(case['query']['label'])})"
        for found in case["lists"]:
            yield f"{_plain(found['model'])}, {_plain(found['stage'])}:"
            yield "\n".join(
                f"{place}. {'✓ right' if answer['right'] else '✗ wrong'} ({answer['score']:.3f}): "
                + _item(answer, section, folder)
                for place, answer in enumerate(found["answers"], 1)
            )
            if found.get("note"):
                yield _plain(found["note"])
    if section.files:
        links = [
            f"[{_plain(label)}]({relative_link(path, folder)})"
            for label, path in section.files.items()
        ]
        yield "Raw files: " + ", ".join(links)


def _item(found: dict[str, Any], section: Section, folder: Path) -> str:
    """A text, a picture, or both."""
    parts = []
    if found["text"]:
        parts.append(_plain(found["text"]))
    if found["picture"] and section.folder is not None:
        path = inside(section.folder, found["picture"])
        parts.append(f"![{_plain(found['alt'])}]({relative_link(path, folder)})")
    return " ".join(parts) or _plain(found["alt"])


def _table(table: Table) -> str:
    names = [_plain(name) for name in table.columns]
    rules = ["---:" if right else "---" for right in cells.numeric(table)]
    rows = []
    for row, content in zip(table.rows, cells.texts(table), strict=True):
        rows.append([_plain(cell) for cell in content])
        if cells.leaks(row):
            rows[-1][0] += " **LEAK**"
    return "\n".join("| " + " | ".join(row) + " |" for row in [names, rules, *rows])


def _plain(text: Any) -> str:
    """On one line, and nothing in it marks up."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return _HEAD.sub(lambda found: found[0] + "\\", _SPECIAL.sub(r"\\\1", line))


def _code(text: str) -> str:
    """As code, between more backticks than are in it."""
    line = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if len(fence) > 1 else f"`{line}`"
