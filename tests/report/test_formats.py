"""Cells as text, and the report as Markdown and LaTeX."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("yaml", reason="extra `recipes`")

from ascl_plugin.commands.main import main
from ascl_plugin.report.cells import leaks, numeric, texts
from ascl_plugin.report.document import Document, Section, Table
from ascl_plugin.report.latex import escaped, latex_tables
from ascl_plugin.report.markdown import markdown_page


def column(*values, digits=None, name="x"):
    return [row[0] for row in texts(Table("", [{name: value} for value in values], digits))]


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
    assert numeric(Table("", rows)) == [True, True, False, False, False]


@pytest.mark.parametrize("cell", ["oracle: label groups", "paired (leaks)", "Paired", "x, leaks"])
def test_rows_that_leak(cell):
    assert leaks({"a": 1.0, "b": cell})
    assert leaks({"leaks": "yes"})


@pytest.mark.parametrize(
    "cell", ["initial", "paired test", "pairedness", "a pipe that leaks water"]
)
def test_rows_that_do_not(cell):
    assert not leaks({"a": 1.0, "b": cell, "leaks": "no"})


TABLE = Table("R_1 & more", [{"way_1": "initial", "R@1": -1.5}, {"way_1": "oracle: x", "R@1": 9.0}])


def test_latex_by_hand():
    document = Document("a\nb", "", [Section("S", {"command": "run\n--k 5"}, tables=[TABLE])])
    text = latex_tables(document)
    wanted = r"""
\begin{tabular}{lr}
\toprule
way\_1 & R@1 \\
\midrule
initial & $-$1.5 \\
\textcolor{red}{oracle: x} & \textcolor{red}{9.0} \\
\bottomrule
\end{tabular}"""
    assert wanted in text
    assert "% a b\n" in text and "% command: run --k 5\n" in text
    assert r"\caption{R\_1 \& more. \textcolor{red}{Rows in red know" in text


@given(st.text(alphabet='ab \\&%$#_{}~^<>|"-±[*'))
def test_latex_leaves_no_special_letter_as_it_is(text):
    shown = escaped(text)
    commands = r"\\text[a-z]+\{\}|\\[&%$#_{}]|\$\\pm\$|-\{\}|\{[\[*]\}"
    assert not re.search(r"[\\&%$#_{}~^<>|\"±\[*]", re.sub(commands, "", shown))
    assert "--" not in shown


def test_markdown_by_hand(tmp_path):
    section = Section("S <b>", {"command": "a `b` _c_"}, {"seed": "0"}, [TABLE], notes=["*n* | m"])
    text = markdown_page(Document("T", "lead", [section]), tmp_path)
    assert "## S &lt;b>\n" in text
    assert "- command: `` a `b` _c_ ``\n- seed: 0" in text
    wanted = "| way\\_1 | R@1 |\n| --- | ---: |\n| initial | -1.5 |\n| oracle: x **LEAK** | 9.0 |"
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
    assert (
        main(["report", *map(str, folders.all), "--format", "latex", "--output", str(output)]) == 0
    )
    tables = output.read_text().count(r"\begin{table}")
    assert tables == text.count("\n| ---") >= 7


def test_no_folder_to_write_to(folders, tmp_path, capsys):
    argv = ["report", str(folders.study), "--output", str(tmp_path / "none" / "r.html")]
    assert main(argv) == 2
    assert "none: no such folder to write to" in capsys.readouterr().err
