"""Results as a table on the terminal and as JSON in a file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ascl_plugin.disk import write_text
from ascl_plugin.report.tables import interval_cells, markdown_table, results_table
from ascl_plugin.reranking import neighbors as oracle
from ascl_plugin.scoring import paired_protocol as paired


def print_results(results: dict[str, Any], title: str) -> None:
    """One table of recalls before and after re-ranking; of their intervals and the asymmetry
    benchmark, where there are any, one each. Rows of scores that know the answer are red."""
    names = ("initial", "reranked", oracle.ROW, paired.ROW)
    recalls: dict[str, Any] = {k: results[k] for k in names if k in results}
    print(f"\n{title}\n")
    if "audit" in results:
        print(
            "audit passed: {images} images and {texts} texts, shuffled and alone; largest "
            "difference {largest_difference:.1e}\n".format(**results["audit"])
        )
    print(_marked(results_table(recalls)))
    if paired.ROW in results:
        print(f"\n{paired.LEAKS}")
    if "intervals" in results:
        cells = {name: interval_cells(found) for name, found in results["intervals"].items()}
        print(f"\n95% intervals, bootstrap over images\n\n{_marked(results_table(cells))}")
    if "asymmetry" in results:
        print(f"\n{markdown_table([results['asymmetry']])}")
    print(flush=True)


def _marked(table: str) -> str:
    """The table, rows of leaking scores in red where a terminal shows colours (no-color.org)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return table
    leaks = tuple(f"| {row}" for row in (oracle.ROW, paired.ROW))
    lines = table.splitlines()
    return "\n".join(f"\033[31m{x}\033[0m" if x.startswith(leaks) else x for x in lines)


def write_json(path: str | Path, content: Any) -> None:
    """Written aside and moved into place."""
    write_text(Path(path), json.dumps(content, indent=2) + "\n")
