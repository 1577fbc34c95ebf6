"""A report as text: Markdown with links to its files, and its tables in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ascl_plugin.report.document import Document, Item, Section, inside, relative_link
from ascl_plugin.report.table import LEAK_NOTE, Table, markdown_table

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
# before a character that would begin a heading, a list, a quotation or a rule
_HEAD = re.compile(r"^\d{1,9}(?=[.)]( |$))|^(?=[#>=]|[-+]([-+ ]|$))")
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$",
    '"': r"\textquotedbl{}",
    "[": "{[}", "*": "{*}",  # after the end of a row they would be its options
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip
_TABLE = r"""\begin{table}
\centering
\caption{%s}
\begin{tabular}{%s}
\toprule
%s
\midrule
%s
\bottomrule
\end{tabular}
\end{table}"""


def markdown_page(document: Document, folder: Path) -> str:
    """Return the report as a file that lies in `folder`; HTML in a text stays text."""
    head = f"# {_plain(document.title)}\n\n{_plain(document.lead)}\n"
    return "\n".join([head, *(markdown_section(section, folder) for section in document.sections)])


def markdown_section(section: Section, folder: Path) -> str:
    """Return one section as Markdown."""
    return "\n\n".join(_section(section, folder)) + "\n"


def latex_tables(document: Document) -> str:
    """Return a `table` environment for each table, with commands and facts in comments above it.

    Rows that leak are red, and the caption says so.
    """
    parts = [f"% {_line(document.title)}\n% \\usepackage[T1]{{fontenc}}"]
    parts[0] += "\n% \\usepackage{booktabs,xcolor}"
    for section in document.sections:
        facts = section.commands | section.facts
        comments = [section.title, *(f"{name}: {text}" for name, text in facts.items())]
        if section.tables:
            parts.append("\n".join(f"% {_line(comment)}" for comment in comments))
        parts += [_latex_table(table) for table in section.tables]
    return "\n\n".join(parts) + "\n"


def latex(text: str) -> str:
    r"""Return text that LaTeX prints as it is.

    >>> print(latex("--k 5 & 50% of val_r1"))
    -{}-k 5 \& 50\% of val\_r1
    """
    line = "".join(_LATEX.get(letter, letter) for letter in _line(text))
    return re.sub("-(?=-)", "-{}", line)  # two would become a dash


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
    line = _line(text).replace("&", "&amp;").replace("<", "&lt;")
    return _HEAD.sub(lambda found: found[0] + "\\", _SPECIAL.sub(r"\\\1", line))


def _code(text: str) -> str:
    """Return the text as code, between more backticks than are in it."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {_line(text)} {fence}" if len(fence) > 1 else f"`{_line(text)}`"


def _latex_table(table: Table) -> str:
    right = table.numeric()
    rows = [list(map(latex, table.columns))]
    for index, cells in enumerate(table.texts()):
        row = [
            re.sub(r"-(?=\d)", "$-$", cell) if number else latex(cell)
            for cell, number in zip(cells, right, strict=True)
        ]
        rows.append([_red(cell) for cell in row] if index in table.leaks else row)
    caption = latex(table.caption)
    if table.leaks:
        caption += ". " + _red(latex(LEAK_NOTE.replace("marked LEAK", "in red")))
    head, *lines = (" & ".join(row) + r" \\" for row in rows)
    return _TABLE % (caption, "".join("lr"[number] for number in right), head, "\n".join(lines))


def _red(text: str) -> str:
    return rf"\textcolor{{red}}{{{text}}}"


def _line(text: str) -> str:
    """Return the text on one line: a comment must not end early."""
    return " ".join(text.split())
