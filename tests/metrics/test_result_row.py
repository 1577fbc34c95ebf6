"""Result rows: the facts of a row reach every table as data, whatever the row is called."""

from __future__ import annotations

import json

import pytest

from ascl_plugin.metrics.result_row import ResultRow, SplitResults
from ascl_plugin.report.table import markdown_table, results_table
from ascl_plugin.report.terminal import print_results

HONEST = ResultRow("Oracle-free baseline", {"rsum": 1.5}, intervals={"rsum": (1.0, 2.0)})
ORACLE = ResultRow("AsCL, oracle: label groups", {"rsum": 2.0}, "the labels", transductive=True)
RESULTS = SplitResults([HONEST, ORACLE], "coco_1k", {"asym1_caption": 50.0}, {"images": 3.0})


def test_names_do_not_matter_for_the_mark(capsys):
    results = SplitResults(RESULTS.rows)
    print_results(results, "test")
    out = capsys.readouterr().out
    assert "| AsCL, oracle: label groups **LEAK** |" in out and "LEAK: the labels" in out
    assert out.count("**LEAK**") == 2  # recalls and intervals
    table = markdown_table(results_table(results.rows))
    assert "Oracle-free baseline **LEAK**" not in table


def test_json_and_back():
    assert SplitResults.from_dict(json.loads(json.dumps(RESULTS.to_dict()))) == RESULTS
    assert RESULTS["Oracle-free baseline"] is HONEST
    with pytest.raises(KeyError, match="no row 'x'; there are Oracle-free baseline, AsCL"):
        RESULTS["x"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leaks": None}, "expected a result row"),
        ({"transductive": "no"}, "expected a result row"),
        ({"leak": ""}, "expected a result row"),
        ({"metrics": {"rsum": "1"}}, "metrics of 'a': rsum is '1', expected a number"),
        ({"intervals": {"rsum": [1]}}, r"rsum of 'a' is \[1\], expected \[low, high\]"),
        ({"intervals": []}, "intervals of 'a': expected a mapping"),
    ],
)
def test_what_is_no_row_is_named(change, message):
    row = {"name": "a", "metrics": {"rsum": 1}, "leaks": "", "transductive": False}
    assert ResultRow.from_dict(row).metrics == {"rsum": 1}
    with pytest.raises(ValueError, match=message):
        SplitResults.from_dict({"protocol": "full", "rows": [{**row, **change}]})


def test_results_without_rows_are_refused():
    with pytest.raises(ValueError, match=r"expected results \{protocol, rows: \[...\]\}, got"):
        SplitResults.from_dict({"protocol": "full", "rows": []})
