"""Tables as a terminal shows them."""

from __future__ import annotations

import pytest

from ascl_plugin.report.tables import markdown_table, results_table


def test_columns_line_up_and_numbers_are_flush_right():
    rows = [{"name": "full", "R@1": 61.26, "n": 5}, {"name": "none", "R@1": 9.0}]
    assert markdown_table(rows) == (
        "| name |  R@1 |   n |\n| ---- | ---: | --: |\n| full | 61.3 |   5 |\n| none |  9.0 |     |"
    )


def test_columns_can_be_chosen():
    rows = [{"a": 1, "b": 0.123, "c": "x"}]
    assert markdown_table(rows, ["c", "b"], floatfmt=".2f") == (
        "| c   |    b |\n| --- | ---: |\n| x   | 0.12 |"
    )
    assert markdown_table([], ["a"]).splitlines() == ["| a   |", "| --- |"]


def test_a_cell_cannot_break_the_table():
    lines = markdown_table([{"a|b": "x|y\nz"}]).splitlines()
    assert lines == [r"| a\|b   |", "| ------ |", r"| x\|y z |"]


def test_nothing_to_show_is_an_error():
    with pytest.raises(ValueError, match="no columns"):
        markdown_table([])
    with pytest.raises(ValueError, match="no results"):
        results_table({})


def test_results_in_the_order_of_the_field():
    metrics = {
        "rsum": 321.0, "i2t_r1": 1.0, "i2t_r5": 5.0, "i2t_r10": 10.0,
        "t2i_r1": 2.0, "t2i_r5": 6.0, "t2i_r10": 11.0, "medr": 4.0,
    }  # fmt: skip
    lines = results_table({"before": metrics, "after": {"rsum": 400.0}}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == [
        "", "I2T R@1", "I2T R@5", "I2T R@10", "T2I R@1", "T2I R@5", "T2I R@10", "Rsum"
    ]  # fmt: skip
    assert cells[2] == ["before", "1.0", "5.0", "10.0", "2.0", "6.0", "11.0", "321.0"]
    assert cells[3] == ["after", "", "", "", "", "", "", "400.0"]
    assert len({len(line) for line in lines}) == 1
