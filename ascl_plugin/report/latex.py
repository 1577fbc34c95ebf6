"""The tables of a report in LaTeX, with booktabs."""

from __future__ import annotations

import re

from ascl_plugin.report import cells
from ascl_plugin.report.document import Document, Table

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$",
    '"': r"\textquotedbl{}",
    # after the end of a row they would be its options
    "[": "{[}", "*": "{*}",
}  # fmt: skip
_HYPHENS = re.compile("-(?=-)")
_NEGATIVE = re.compile(r"-(?=\d)")


def latex_tables(document: Document) -> str:
    """A `table` environment for each table; how it was made stands in comments above it.

    Rows that leak are red, and the caption says so.
    """
    parts = [
        f"% {_line(document.title)}\n% \\usepackage[T1]{{fontenc}}\n"
        "% \\usepackage{booktabs,xcolor}"
    ]
    for section in document.sections:
        made = [
            f"% {name}: {_line(text)}" for name, text in (section.commands | section.facts).items()
        ]
        if section.tables:
            parts.append("\n".join([f"% {_line(section.title)}", *made]))
        parts += [_table(table) for table in section.tables]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is.

    >>> from ascl_plugin.report.latex import escaped
    >>> escaped("--k 5 & 50% of val_r1")
    '-{}-k 5 \\\\& 50\\\\% of val\\\\_r1'
    """
    line = "".join(_ESCAPES.get(letter, letter) for letter in " ".join(text.split()))
    return _HYPHENS.sub("-{}", line)  # two would become a dash


def _table(table: Table) -> str:
    right = cells.numeric(table)
    lines = [_row([escaped(name) for name in table.columns]), r"\midrule"]
    for row, content in zip(table.rows, cells.texts(table), strict=True):
        shown = [
            _NEGATIVE.sub("$-$", cell) if number else escaped(cell)
            for cell, number in zip(content, right, strict=True)
        ]
        if cells.leaks(row):
            shown = [rf"\textcolor{{red}}{{{cell}}}" for cell in shown]
        lines.append(_row(shown))
    caption = escaped(table.caption)
    if cells.table_leaks(table):
        note = escaped(cells.LEAK_NOTE.replace("marked LEAK", "in red"))
        caption += rf". \textcolor{{red}}{{{note}}}"
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in right)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _row(shown: list[str]) -> str:
    return " & ".join(shown) + r" \\"


def _line(text: str) -> str:
    """On one line, so that a comment does not end early."""
    return " ".join(text.split())
