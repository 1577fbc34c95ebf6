"""Tables as data, and as text: how many digits, which columns are numbers, which rows leak."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ascl_plugin.metrics.result_row import ResultRow
from ascl_plugin.metrics.statistics import over_seeds

Cell = str | int | float | bool | None
T = TypeVar("T")

RESULT_COLUMNS = {
    "i2t_r1": "I2T R@1",
    "i2t_r5": "I2T R@5",
    "i2t_r10": "I2T R@10",
    "t2i_r1": "T2I R@1",
    "t2i_r5": "T2I R@5",
    "t2i_r10": "T2I R@10",
    "rsum": "Rsum",
}
LEAK_NOTE = (
    "Rows marked LEAK know the answer: the pairing or the label that retrieval is to find enters "
    "the score. They reproduce published tables and are no result; do not set them beside others."
)
_NUMBER = re.compile(r"[-+]?\d")


@dataclass(frozen=True)
class Table:
    """Rows under a caption.

    Attributes:
        caption: the quantity and the data.
        rows: column to cell; a column that a row lacks is left blank.
        digits: digits after the point of floats; None chooses for each column by its size.
        leaks: indices of the rows whose scores know the answer.
        closed: True if a page shows the caption alone until it is asked for the rows.
    """

    caption: str
    rows: Sequence[Mapping[str, Cell]]
    digits: int | None = None
    leaks: Sequence[int] = ()
    closed: bool = False

    @property
    def columns(self) -> list[str]:
        """All columns, in order of first appearance."""
        return list(dict.fromkeys(column for row in self.rows for column in row))

    def folded(self, *names: str) -> Table:
        """Return the table with named columns that are the same in every row in its caption."""
        if len(self.rows) < 2:
            return self
        alike = [name for name in names if len(set(map(repr, self._values(name)))) == 1]
        same = {name: self.rows[0].get(name) for name in alike}
        if not same:
            return self
        rows = [{k: v for k, v in row.items() if k not in same} for row in self.rows]
        facts = ", ".join(f"{name} {_text(value, 1)}" for name, value in same.items())
        return replace(self, caption=f"{self.caption}; every row: {facts}", rows=rows)

    def texts(self) -> list[list[str]]:
        """Return every cell as text, row by row."""
        by_column = [_column(name, self._values(name), self.digits) for name in self.columns]
        return [list(row) for row in zip(*by_column, strict=True)]

    def numeric(self) -> list[bool]:
        """Return True for each column of nothing but numbers, which is flush right."""
        found = []
        for name in self.columns:
            given = [value for value in self._values(name) if value not in (None, "")]
            found.append(bool(given) and all(map(_is_number, given)))
        return found

    def _values(self, name: str) -> list[Cell]:
        return [row.get(name) for row in self.rows]


def markdown_table(table: Table, escape: Callable[[str], str] | None = None) -> str:
    r"""Return a Markdown table whose columns line up, so that it also reads well in a terminal.

    Args:
        table: its caption is not part of the text.
        escape: makes a cell plain text in Markdown; the default escapes what would end the cell.

    Returns:
        The table without a final newline. Rows that leak say so in their first cell.

    Examples:
        >>> from ascl_plugin.report.table import Table, markdown_table
        >>> rows = [{"loss": "nll", "R@1": 61.25}, {"loss": "ratio", "R@1": 9.0}]
        >>> print(markdown_table(Table("Recall", rows)))
        | loss  |  R@1 |
        | ----- | ---: |
        | nll   | 61.2 |
        | ratio |  9.0 |
    """
    escape = escape or (lambda text: " ".join(text.split()).replace("|", r"\|"))
    rows = [[escape(cell) for cell in row] for row in (table.columns, *table.texts())]
    for index in table.leaks:
        rows[1 + index][0] += " **LEAK**"
    columns = []
    for right, cells in zip(table.numeric(), zip(*rows, strict=True), strict=True):
        width = max(3, *map(len, cells))
        head, *body = (cell.rjust(width) if right else cell.ljust(width) for cell in cells)
        columns.append([head, "-" * (width - right) + ":" * right, *body])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True))


def results_table(rows: Sequence[ResultRow], caption: str = "") -> Table:
    """Return recalls of both directions and their sum, in percent; a missing one is left blank."""
    leaks = [index for index, row in enumerate(rows) if row.leaks]
    blank = dict.fromkeys(RESULT_COLUMNS.values())
    cells = [{"": row.name} | blank | result_cells(row.metrics) for row in rows]
    return Table(caption, cells, 1, leaks)


def result_cells(metrics: Mapping[str, T]) -> dict[str, T]:
    """Return the metrics of a table of results, under the titles of their columns."""
    return {title: metrics[key] for key, title in RESULT_COLUMNS.items() if key in metrics}


def interval_cells(intervals: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """Return a cell such as `61.2 to 64.0` for each metric of `confidence_intervals`."""
    return {name: f"{low:.1f} to {high:.1f}" for name, (low, high) in intervals.items()}


def spread_cells(runs: Sequence[Mapping[str, float]], floatfmt: str = ".1f") -> dict[str, str]:
    """Return a cell such as `61.2 ± 1.4` for each metric, over runs with different seeds."""
    return {
        name: f"{mean:{floatfmt}}" + ("" if spread is None else f" ± {spread:{floatfmt}}")
        for name, (mean, spread) in over_seeds(runs).items()
    }


def with_blind(contests: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return each contest's accuracy, blind accuracy and their difference, in that order.

    Args:
        contests: name -> `accuracy`, `blind` and other values, as the asymmetry benchmarks return.
    """
    return {
        name: {
            "accuracy": one["accuracy"],
            "blind": one["blind"],
            "difference": one["accuracy"] - one["blind"],
        }
        for name, one in contests.items()
    }


def blind_beside(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the contests of flat metrics: NAME beside NAME_blind, as `with_blind` takes them.

    >>> blind_beside({"a": 60.0, "b": 70.0, "a_blind": 50.0})
    {'a': {'accuracy': 60.0, 'blind': 50.0}}
    """
    return {
        name: {"accuracy": value, "blind": metrics[f"{name}_blind"]}
        for name, value in metrics.items()
        if f"{name}_blind" in metrics
    }


def _column(name: str, values: Sequence[Cell], digits: int | None) -> list[str]:
    if digits is None:
        largest = max((abs(value) for value in values if isinstance(value, float)), default=0.0)
        digits = 1 if largest >= 10 or name.rstrip("%").endswith(("R@1", "R@5", "R@10")) else 2
        digits = digits if largest >= 1 or digits == 1 else 3
    return [_text(value, digits) for value in values]


def _text(value: Cell, digits: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        text = f"{value:.{digits}f}"
        # a p-value of .0001 is not 0
        return f"{value:.1g}" if value and not float(text) else text
    return " ".join(str(value).split())


def _is_number(value: Cell) -> bool:
    if isinstance(value, str):
        return _NUMBER.match(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)
