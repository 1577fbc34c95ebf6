"""The HTML page: nothing escapes from a text, nothing comes from elsewhere, nothing is left out."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("matplotlib", reason="extra `report`")
pytest.importorskip("jinja2", reason="extra `report`")
pytest.importorskip("yaml", reason="extra `recipes`")

from ascl_plugin.commands.main import main
from ascl_plugin.report.build import build_report
from ascl_plugin.report.document import Document, Section
from ascl_plugin.report.page import html_page
from ascl_plugin.report.table import Table

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "img", "source", "br"}


class Page(HTMLParser):
    """Tags with attributes, and the text of the page; unbalanced tags are an error."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts, self.rows = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append((dict(attrs).get("class"), []))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if "tr" in self.open:
            self.rows[-1][1].append(data)

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture
def page(folders, tmp_path):
    output = tmp_path / "out" / "report.html"
    output.parent.mkdir()
    title = f"All {EVIL}"
    argv = ["report", *map(str, folders.all), "--output", str(output), "--title", title]
    assert main(argv) == 0
    return output


def test_texts_stay_texts(page):
    parsed = Page(page.read_text())
    assert not parsed.all("script")
    assert not [attrs for _, attrs in parsed.tags if any(n.startswith("on") for n in attrs)]
    text = "".join(parsed.texts)
    for word in ("All", "recipe", "Cases", "Of", "c", "cell", "Figure", "note", "case", "ask",
                 "yes", "m", "ascl experiment"):  # fmt: skip
        assert f"{word} {EVIL}" in text, word
    assert f'x" {EVIL}' in [attrs["alt"] for attrs in parsed.all("img")]


def test_nothing_comes_from_elsewhere(page):
    text = page.read_text()
    parsed = Page(text)
    assert not {tag for tag, _ in parsed.tags} & {"link", "iframe", "object", "embed", "base"}
    sources = [a["src"] for a in parsed.all("img")] + [a["srcset"] for a in parsed.all("source")]
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert base64.b64encode(b"jpeg").decode() in text
    assert "url(" not in text and "@import" not in text
    assert "http" not in "".join(a["href"] for a in parsed.all("a"))
    assert len(text) < 300_000


def test_links_are_relative_and_lead_to_every_raw_file(page, folders):
    links = [a["href"] for a in Page(page.read_text()).all("a")]
    files = [link for link in links if not link.startswith("#")]
    assert not [link for link in files if urlsplit(link).scheme or link.startswith("/")]
    found = {(page.parent / unquote(link)).resolve() for link in files}
    wanted = [folder / name for folder in folders.runs
              for name in ("metrics.json", "log.jsonl", "config.yaml")]  # fmt: skip
    wanted += [folders.runs[0] / "evaluated.json", folders.study / "cases" / "result.json"]
    assert found == {path.resolve() for path in wanted}
    anchors = {attrs["id"] for _, attrs in Page(page.read_text()).tags if "id" in attrs}
    assert {link[1:] for link in links if link.startswith("#")} == anchors


def test_every_table_is_there_with_all_its_cells(page, folders, tmp_path):
    parsed = Page(page.read_text())
    cells = [row[1] for row in parsed.rows]
    document = build_report(folders.all, None, tmp_path)
    tables = [table for section in document.sections for table in section.tables]
    assert len(tables) == len(parsed.all("table")) >= 7
    for table in tables:
        assert table.caption in parsed.texts
        assert table.columns in cells
    assert [f"cell {EVIL}", "12.3"] in cells
    assert ["second", "initial", *["52.5"] * 6, "315.0", "no"] in cells
    assert "290.0 to 310.0" in parsed.texts and "93.2" in parsed.texts


def test_further_figures_are_closed_but_not_what_leaks():
    closed = [Table("further", [{"run": "a", "x": 1.0}], closed=True),
              Table("leaks", [{"run": "a", "x": 1.0}], leaks=[0], closed=True),
              Table("first", [{"run": "a", "x": 1.0}])]  # fmt: skip
    parsed = Page(html_page(Document("t", "l", [Section("s", tables=closed)]), Path(".")))
    assert len(parsed.all("details")) == len(parsed.all("summary")) == 1
    assert len(parsed.all("table")) == 3
    assert parsed.texts.count("further") == 1


def test_leaks_are_marked_and_nothing_else_is(page):
    parsed = Page(page.read_text())
    marked = [cells for kind, cells in parsed.rows if kind == "leak"]
    assert all("LEAK" in cells for cells in marked)
    names = {cell for cells in marked for cell in cells}
    assert names >= {"AsCL, oracle: label groups", "paired"}
    assert not names & {"initial", "reranked", "second"}


def test_every_picture_has_a_text_and_headings_skip_no_level(page):
    parsed = Page(page.read_text())
    assert all(attrs["alt"] for attrs in parsed.all("img"))
    levels = [int(tag[1]) for tag, _ in parsed.tags if len(tag) == 2 and tag[0] == "h" != tag[1]
              and tag[1].isdigit()]  # fmt: skip
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_same_folders_give_the_same_bytes(page, folders, tmp_path):
    again = html_page(build_report(folders.all, f"All {EVIL}", tmp_path / "d"), page.parent)
    assert again == page.read_text()


def test_a_missing_figure_and_one_outside_its_folder(folders, tmp_path, capsys):
    (folders.study / "cases" / "f.svg").unlink()
    assert main(["report", str(folders.study), "--output", str(tmp_path / "r.html")]) == 2
    assert "f.svg: no such file" in capsys.readouterr().err
    result = folders.study / "cases" / "result.json"
    result.write_text(result.read_text().replace("f.svg", "../../secret.svg"))
    assert main(["report", str(folders.study), "--output", str(tmp_path / "r.html")]) == 2
    assert "'../../secret.svg' is not in the experiment's folder" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_a_link_out_of_the_folder_is_not_shown(folders, tmp_path, capsys):
    figure = folders.study / "cases" / "f.svg"
    secret = tmp_path / "secret.svg"
    secret.write_text("<svg/>")
    for path in (figure, figure.with_suffix(".dark.svg")):
        path.unlink(missing_ok=True)
        path.symlink_to(secret)
        assert main(["report", str(folders.study), "--output", str(tmp_path / "r.html")]) == 2
        assert f"{path}: a link that leaves the experiment's folder, to" in capsys.readouterr().err
        path.unlink()
        path.write_text("<svg/>")
