"""Cells of a table as text: how many digits, which columns are numbers, which rows leak."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ascl_plugin.report.document import Table

LEAK_NOTE = (
    "Rows marked LEAK know the answer: the pairing or the label that retrieval is to find enters "
    "the score. They reproduce published tables and are no result; do not set them beside others."
)
_NUMBER = re.compile(r"[-+]?\d")
_LEAK = re.compile(r"(oracle|paired)\b(?! (test|bootstrap|difference))|.*[,:(] ?leaks\)?$", re.I)


def texts(table: Table) -> list[list[str]]:
    """Every cell of the table as text, row by row."""
    by_column = [_column(name, [row.get(name) for row in table.rows], table.digits)
                 for name in table.columns]  # fmt: skip
    return [list(row) for row in zip(*by_column, strict=True)]


def numeric(table: Table) -> list[bool]:
    """Whether each column holds numbers and nothing else, and so is flush right."""
    found = []
    for name in table.columns:
        values = [row[name] for row in table.rows if row.get(name) not in (None, "")]
        found.append(bool(values) and all(_is_number(value) for value in values))
    return found


def leaks(row: Mapping[str, Any]) -> bool:
    """Whether a row is of an oracle or the paired protocol, by what its cells say.

    A cell that begins with "oracle" or "paired" or ends in "leaks", or a column "leaks" with yes.
    """
    if row.get("leaks") in (True, "yes"):
        return True
    return any(isinstance(value, str) and _LEAK.match(value) for value in row.values())


def table_leaks(table: Table) -> bool:
    """Whether any row does."""
    return any(leaks(row) for row in table.rows)


def _column(name: str, values: list[Any], digits: int | None) -> list[str]:
    floats = [abs(value) for value in values if isinstance(value, float)]
    if digits is None:
        largest = max(floats, default=0.0)
        digits = 1 if largest >= 10 or name.rstrip("%").endswith(("R@1", "R@5", "R@10")) else 2
        digits = digits if largest >= 1 or digits == 1 else 3
    return [_text(value, digits) for value in values]


def _text(value: Any, digits: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        text = f"{value:.{digits}f}"
        # a p-value of .0001 is not 0
        return f"{value:.1g}" if value and not float(text) else text
    return " ".join(str(value).split())


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return _NUMBER.match(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)
