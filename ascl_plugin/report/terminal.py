"""Results of a split as tables on the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from ascl_plugin.metrics.result_row import SplitResults
from ascl_plugin.report.names import ASYMMETRY, BLIND, RANKING, RECALLS
from ascl_plugin.report.table import (
    Cell,
    Table,
    blind_beside,
    interval_cells,
    markdown_table,
    result_cells,
    results_table,
    with_blind,
)

_BY_DIRECTION = ("i2t_ndcg10", "i2t_mrr", "t2i_ndcg10", "t2i_mrr")
_MORE = ("balanced", "ordered")  # figures of contests that some have


def print_results(results: SplitResults, title: str) -> None:
    """Print recalls and, if there are any, their intervals and the asymmetry benchmark.

    Rows that leak are marked, and red on a terminal; the reasons follow the table.
    """
    print(f"\n{title}\n")
    if results.audit:
        print(
            "audit passed: {images} images and {texts} texts, shuffled and alone; largest "
            "difference {largest_difference:.1e}\n".format(**results.audit)
        )
    recalls = results_table(results.rows)
    print(_colored(recalls))
    cells: list[dict[str, Cell]] = [{"": row.name, **_named(row.metrics)} for row in results.rows]
    if any(len(one) > 1 for one in cells):
        print(f"\n{_colored(Table('', cells, 1, leaks=recalls.leaks))}")
    print(f"\n{RECALLS}")
    for reason in dict.fromkeys(row.leaks for row in results.rows if row.leaks):
        print(f"\nLEAK: {reason}")
    if any(row.intervals for row in results.rows):
        bounds = [
            {"": row.name} | result_cells(interval_cells(row.intervals)) for row in results.rows
        ]
        print("\n95% intervals, bootstrap over images\n")
        print(_colored(Table("", bounds, leaks=recalls.leaks)))
    if results.asymmetry:
        contests = blind_beside(results.asymmetry)
        if contests:
            print_contests(contests)
        told = {*contests, *(f"{name}_blind" for name in contests)}
        rest = {
            ASYMMETRY.get(name, name): value
            for name, value in results.asymmetry.items()
            if name not in told
        }
        if rest:
            print(f"\n{markdown_table(Table('', [rest], 1))}")
    print(flush=True)


def print_contests(contests: Mapping[str, Mapping[str, float]]) -> None:
    """Print accuracies of contests of texts, and blind: with the mean image for each image."""
    rows: list[dict[str, Cell]] = []
    for name, cells in with_blind(contests).items():
        row: dict[str, Cell] = {"percent": ASYMMETRY.get(name, name), **cells}
        row |= {more: contests[name].get(more) for more in _MORE if more in contests[name]}
        if "texts" in contests[name]:
            row["texts"] = int(contests[name]["texts"])
        rows.append(row)
    print(f"\n{markdown_table(Table('', rows, 1))}\n\n{BLIND}", flush=True)


def print_balanced(sets: Mapping[str, Mapping[str, float]]) -> None:
    """Print figures of sets of two images and two texts, as `balanced_benchmark` returns them."""
    rows: list[dict[str, Cell]] = [
        {"percent": kind, **one, "count": int(one["count"])} for kind, one in sets.items()
    ]
    print(f"\n{markdown_table(Table('', rows, 1))}", flush=True)


def _named(metrics: Mapping[str, float]) -> dict[str, Cell]:
    return {RANKING[name]: metrics[name] for name in _BY_DIRECTION if name in metrics}


def _colored(table: Table) -> str:
    """Return the table, with leaking rows in red if a terminal shows colors (no-color.org)."""
    lines = markdown_table(table).splitlines()
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        for index in table.leaks:
            lines[2 + index] = f"\033[31m{lines[2 + index]}\033[0m"
    return "\n".join(lines)
