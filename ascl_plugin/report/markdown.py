"""A report as Markdown: the same tables, figures and cases, with links to their files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ascl_plugin.report.document import Document, Item, Section, inside, relative_link
from ascl_plugin.report.table import LEAK_NOTE, markdown_table

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
# before a character that would begin a heading, a list, a quotation or a rule
_HEAD = re.compile(r"^\d{1,9}(?=[.)]( |$))|^(?=[#>=]|[-+]([-+ ]|$))")


def markdown_page(document: Document, folder: Path) -> str:
    """Return the report as a file that lies in `folder`; HTML in a text stays text."""
    head = f"# {_plain(document.title)}\n\n{_plain(document.lead)}\n"
    return "\n".join([head, *(markdown_section(section, folder) for section in document.sections)])


def markdown_section(section: Section, folder: Path) -> str:
    """Return one section as Markdown."""
    return "\n\n".join(_section(section, folder)) + "\n"


def _section(section: Section, folder: Path) -> Iterator[str]:
    yield f"## {_plain(section.title)}"
    facts = [f"- {_plain(name)}: {_code(text)}" for name, text in section.commands.items()]
    facts += [f"- {_plain(name)}: {_plain(text)}" for name, text in section.facts.items()]
    if facts:
        yield "\n".join(facts)
    for table in section.tables:
        yield f"**{_plain(table.caption)}**"
        yield markdown_table(table, _plain)
        if table.leaks:
            yield f"**LEAK**: {_plain(LEAK_NOTE)}"
    for figure in section.figures:
        yield f"![{_plain(figure.caption)}]({relative_link(figure.path, folder)})"
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
            if found["note"]:
                yield _plain(found["note"])
    if section.files:
        links = {_plain(name): relative_link(path, folder) for name, path in section.files.items()}
        yield "Raw files: " + ", ".join(f"[{name}]({link})" for name, link in links.items())


def _item(found: Item, section: Section, folder: Path) -> str:
    """Return a text, a picture, or both."""
    parts = [_plain(found["text"])] if found["text"] else []
    if found["picture"]:
        path = inside(section.folder, found["picture"])
        parts.append(f"![{_plain(found['alt'])}]({relative_link(path, folder)})")
    return " ".join(parts) or _plain(found["alt"])


def _plain(text: str) -> str:
    """Return the text on one line, with everything that marks up escaped."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return _HEAD.sub(lambda found: found[0] + "\\", _SPECIAL.sub(r"\\\1", line))


def _code(text: str) -> str:
    """Return the text as code, between more backticks than are in it."""
    line = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if len(fence) > 1 else f"`{line}`"
