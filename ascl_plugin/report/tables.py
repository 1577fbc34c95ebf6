"""Tables that read well in a terminal and are valid Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RESULT_COLUMNS = {
    "i2t_r1": "I2T R@1",
    "i2t_r5": "I2T R@5",
    "i2t_r10": "I2T R@10",
    "t2i_r1": "T2I R@1",
    "t2i_r5": "T2I R@5",
    "t2i_r10": "T2I R@10",
    "rsum": "Rsum",
}


def markdown_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
    floatfmt: str = ".1f",
) -> str:
    """A Markdown table, padded so that its columns line up.

    Args:
        rows: one mapping from column to value for each row; a column that a row lacks, or None,
            is left blank.
        columns: which columns, in which order; None: all, in order of first appearance.
        floatfmt: format of floats; everything else is written by ``str``.

    Returns:
        The table without a final newline. Columns of numbers are flush right.

    Raises:
        ValueError: neither rows nor columns.

    Example:
        >>> from ascl_plugin.report.tables import markdown_table
        >>> print(markdown_table([{"loss": "nll", "R@1": 61.25}, {"loss": "ratio", "R@1": 9.0}]))
        | loss  |  R@1 |
        | ----- | ---: |
        | nll   | 61.2 |
        | ratio |  9.0 |
    """
    if columns is None:
        columns = list(dict.fromkeys(column for row in rows for column in row))
    if not columns:
        raise ValueError("markdown_table: no columns, and no rows to take them from")
    parts = [_column(name, [row.get(name) for row in rows], floatfmt) for name in columns]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in zip(*parts, strict=True))


def results_table(results: Mapping[str, Mapping[str, float | str]]) -> str:
    """Recalls of both directions and their sum, in percent, one named result a row.

    Args:
        results: name of the row to metrics as `retrieval_metrics` returns them, or to cells as
            `interval_cells` and `spread_cells` do; further keys are passed over, a missing one is
            left blank.

    Raises:
        ValueError: no results.
    """
    if not results:
        raise ValueError("results_table: no results")
    rows: list[dict[str, Any]] = [
        {"": name} | {title: metrics.get(key) for key, title in RESULT_COLUMNS.items()}
        for name, metrics in results.items()
    ]
    return markdown_table(rows)


def interval_cells(intervals: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """A cell such as `61.2 to 64.0` for each metric of `confidence_intervals`."""
    return {name: f"{low:.1f} to {high:.1f}" for name, (low, high) in intervals.items()}


def spread_cells(
    spreads: Mapping[str, tuple[float, float | None]], floatfmt: str = ".1f"
) -> dict[str, str]:
    """A cell such as `61.2 ± 1.4` for each metric of `over_seeds`; of one seed, the mean alone."""
    return {
        name: f"{mean:{floatfmt}}"
        if deviation is None
        else f"{mean:{floatfmt}} ± {deviation:{floatfmt}}"
        for name, (mean, deviation) in spreads.items()
    }


def _column(name: str, values: list[Any], floatfmt: str) -> list[str]:
    """Header, rule and cells of one column, all of one width."""
    cells = [_cell(value, floatfmt) for value in values]
    width = max(3, len(_cell(name, "")), *(len(cell) for cell in cells))
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, int | float) for value in given):
        return [
            _cell(name, "").rjust(width),
            "-" * (width - 1) + ":",
            *(cell.rjust(width) for cell in cells),
        ]
    return [_cell(name, "").ljust(width), "-" * width, *(cell.ljust(width) for cell in cells)]


def _cell(value: Any, floatfmt: str) -> str:
    if value is None:
        return ""
    text = format(value, floatfmt) if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", r"\|")
