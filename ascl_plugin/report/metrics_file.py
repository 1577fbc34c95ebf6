"""Results as a table on the terminal and as JSON in a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ascl_plugin.report.tables import interval_cells, markdown_table, results_table
from ascl_plugin.rerank import oracle


def print_results(results: dict[str, Any], title: str) -> None:
    """One table of recalls before and after re-ranking; of their intervals and the asymmetry
    benchmark, where there are any, one each."""
    names = ("initial", "reranked", oracle.ROW)
    recalls: dict[str, Any] = {k: results[k] for k in names if k in results}
    print(f"\n{title}\n\n{results_table(recalls)}")
    if "intervals" in results:
        cells = {name: interval_cells(found) for name, found in results["intervals"].items()}
        print(f"\n95% intervals, bootstrap over images\n\n{results_table(cells)}")
    if "asymmetry" in results:
        print(f"\n{markdown_table([results['asymmetry']])}")
    print(flush=True)


def write_json(path: str | Path, content: Any) -> None:
    """Written aside and moved into place."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Written aside and moved into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
