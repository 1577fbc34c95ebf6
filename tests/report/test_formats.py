"""Cells as text, and the report as Markdown and LaTeX."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("yaml", reason="extra `recipes`")

from ascl_plugin.commands.main import main
from ascl_plugin.metrics.result_row import ResultRow
from ascl_plugin.report.document import Document, Section
from ascl_plugin.report.table import Table, markdown_table, results_table
from ascl_plugin.report.text_formats import latex, latex_tables, markdown_page


def column(*values, digits=None, name="x"):
    return [row[0] for row in Table("", [{name: value} for value in values], digits).texts()]


def test_digits_follow_the_size_of_a_column():
    assert column(91.26, 5.0) == ["91.3", "5.0"]
    assert column(1.256, 0.5) == ["1.26", "0.50"]
    assert column(0.1234, None, 0.5) == ["0.123", "", "0.500"]
    assert column(0.25, name="I2T R@1") == ["0.2"]
    assert column(0.00004, 0.5) == ["4e-05", "0.500"]
    assert column(3, True, " a\n b ", 0.0) == ["3", "yes", "a b", "0.000"]
    assert column(1.25, digits=1) == ["1.2"]


def test_columns_of_numbers():
    rows = [{"a": 1, "b": "1.0 ± 2.0", "c": "-", "d": None, "e": True}, {"a": None, "c": 1.0}]
    assert Table("", rows).numeric() == [True, True, False, False, False]


TABLE = Table(
    "R_1 & more",
    [{"way_1": "Oracle-free", "R@1": -1.5}, {"way_1": "AsCL, oracle: x", "R@1": 9.0}],
    leaks=[1],
)


def test_tables_in_a_terminal_line_up_and_no_cell_breaks_them():
    rows = [{"a|b": "x|y\nz", "R@1": 61.26, "n": 5}, {"a|b": "none", "R@1": 9.0}]
    assert markdown_table(Table("", rows)) == (
        "| a\\|b   |  R@1 |   n |\n| ------ | ---: | --: |\n| x\\|y z | 61.3 |   5 |\n"
        "| none   |  9.0 |     |"
    )


def test_results_in_the_order_of_the_field():
    metrics = {"rsum": 36.0, "i2t_r5": 5.0, "i2t_r1": 1.0, "i2t_r10": 10.0, "medr": 4.0}
    metrics |= {"t2i_r1": 2.0, "t2i_r5": 6.0, "t2i_r10": 11.0}
    table = results_table([ResultRow("before", metrics), ResultRow("after", {"rsum": 4.0}, "why")])
    assert table.columns == [
        "", "I2T R@1", "I2T R@5", "I2T R@10", "T2I R@1", "T2I R@5", "T2I R@10", "Rsum"
    ]  # fmt: skip
    assert table.texts()[0] == ["before", "1.0", "5.0", "10.0", "2.0", "6.0", "11.0", "36.0"]
    assert table.texts()[1] == ["after", *[""] * 6, "4.0"] and table.leaks == [1]


def test_latex_by_hand():
    document = Document("a\nb", "", [Section("S", {"command": "run\n--k 5"}, tables=[TABLE])])
    text = latex_tables(document)
    wanted = r"""
\begin{tabular}{lr}
\toprule
way\_1 & R@1 \\
\midrule
Oracle-free & $-$1.5 \\
\textcolor{red}{AsCL, oracle: x} & \textcolor{red}{9.0} \\
\bottomrule
\end{tabular}"""
    assert wanted in text
    assert "% a b\n" in text and "% command: run --k 5\n" in text
    assert r"\caption{R\_1 \& more. \textcolor{red}{Rows in red know" in text


@given(st.text(alphabet='ab \\&%$#_{}~^<>|"-±[*'))
def test_latex_leaves_no_special_letter_as_it_is(text):
    shown = latex(text)
    commands = r"\\text[a-z]+\{\}|\\[&%$#_{}]|\$\\pm\$|-\{\}|\{[\[*]\}"
    assert not re.search(r"[\\&%$#_{}~^<>|\"±\[*]", re.sub(commands, "", shown))
    assert "--" not in shown


def test_markdown_by_hand(tmp_path):
    section = Section("S <b>", {"command": "a `b` _c_"}, {"seed": "0"}, [TABLE], notes=["*n* | m"])
    text = markdown_page(Document("T", "lead", [section]), tmp_path)
    assert "## S &lt;b>\n" in text
    assert "- command: `` a `b` _c_ ``\n- seed: 0" in text
    wanted = (
        "| way\\_1                   |  R@1 |\n| ------------------------ | ---: |\n"
        "| Oracle-free              | -1.5 |\n| AsCL, oracle: x **LEAK** |  9.0 |"
    )
    assert wanted in text
    assert "- \\*n\\* \\| m" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("~~~", r"\~\~\~"), ("# a", r"\# a"), ("#", r"\#"), ("> a", r"\> a"), ("1. a", r"1\. a"),
        ("12)", r"12\)"), ("- a", r"\- a"), ("+", r"\+"), ("---", r"\---"), ("===", r"\==="),
        ("$a$", r"\$a\$"), ("-1.5", "-1.5"), ("2.5", "2.5"), ("3", "3"), ("a # b - c", "a # b - c"),
    ],
)  # fmt: skip
def test_a_text_begins_nothing_in_markdown(text, shown, tmp_path):
    """No heading, list, quotation or rule, and no block of code to the end of the page."""
    page = markdown_page(Document("T", text, [Section("S", notes=[text])]), tmp_path)
    assert page == f"# T\n\n{shown}\n\n## S\n\n- {shown}\n"


def test_markdown_and_latex_of_whole_folders(folders, tmp_path):
    pytest.importorskip("matplotlib", reason="extra `report`")
    output = tmp_path / "out.md"
    assert main(["report", *map(str, folders.all), "--output", str(output)]) == 0
    text = output.read_text()
    assert "<script" not in re.sub("`[^`]+`", "", text)
    links = re.findall(r"\]\((?!#)([^)]+)\)", text)
    assert "out_files/loss-0.svg" in links and "study/cases/1.jpg" in links
    assert all((tmp_path / unquote(link)).exists() for link in links)
    output = tmp_path / "out.tex"
    assert main(["report", *map(str, folders.all), "--output", str(output)]) == 0
    tables = output.read_text().count(r"\begin{table}")
    assert tables == text.count("\n| ---") >= 7


def test_nowhere_to_write_to(folders, tmp_path, capsys):
    assert main(["report", str(folders.study), "--output", str(tmp_path / "r.pdf")]) == 2
    assert "expected a name that ends in .html, .md, .tex" in capsys.readouterr().err
    argv = ["report", str(folders.study), "--output", str(tmp_path / "none" / "r.html")]
    assert main(argv) == 2
    assert "none: no such folder to write to" in capsys.readouterr().err
