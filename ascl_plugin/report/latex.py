"""The tables of a report in LaTeX, with booktabs."""

from __future__ import annotations

import re

from ascl_plugin.report.document import Document
from ascl_plugin.report.table import LEAK_NOTE, Table

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
_HEAD = r"""% {title}
% \usepackage[T1]{{fontenc}}
% \usepackage{{booktabs,xcolor}}"""
_TABLE = r"""\begin{{table}}
\centering
\caption{{{caption}}}
\begin{{tabular}}{{{places}}}
\toprule
{head}
\midrule
{rows}
\bottomrule
\end{{tabular}}
\end{{table}}"""


def latex_tables(document: Document) -> str:
    """Return a `table` environment for each table, with commands and facts in comments above it.

    Rows that leak are red, and the caption says so.
    """
    parts = [_HEAD.format(title=_line(document.title))]
    for section in document.sections:
        if section.tables:
            facts = section.commands | section.facts
            comments = [section.title, *(f"{name}: {text}" for name, text in facts.items())]
            parts.append("\n".join(f"% {_line(comment)}" for comment in comments))
        parts += [_table(table) for table in section.tables]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Return text that LaTeX prints as it is.

    >>> from ascl_plugin.report.latex import escaped
    >>> escaped("--k 5 & 50% of val_r1")
    '-{}-k 5 \\\\& 50\\\\% of val\\\\_r1'
    """
    line = "".join(_ESCAPES.get(letter, letter) for letter in _line(text))
    return _HYPHENS.sub("-{}", line)  # two would become a dash


def _table(table: Table) -> str:
    right = table.numeric()
    rows = []
    for index, cells in enumerate(table.texts()):
        shown = [
            _NEGATIVE.sub("$-$", cell) if number else escaped(cell)
            for cell, number in zip(cells, right, strict=True)
        ]
        rows.append([_red(cell) for cell in shown] if index in table.leaks else shown)
    caption = escaped(table.caption)
    if table.leaks:
        caption += ". " + _red(escaped(LEAK_NOTE.replace("marked LEAK", "in red")))
    head, *lines = (" & ".join(row) + r" \\" for row in [map(escaped, table.columns), *rows])
    places = "".join("r" if number else "l" for number in right)
    return _TABLE.format(caption=caption, places=places, head=head, rows="\n".join(lines))


def _red(text: str) -> str:
    return rf"\textcolor{{red}}{{{text}}}"


def _line(text: str) -> str:
    """Return the text on one line: a comment must not end early."""
    return " ".join(text.split())
