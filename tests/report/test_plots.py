"""Figures as files."""

from __future__ import annotations

import itertools
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from ascl_plugin.report.plots import COLOURS, legend, lines, panels, save

matplotlib = pytest.importorskip("matplotlib", reason='needs the extra "report"')

PAGES = {"light": "#FFFFFF", "dark": "#0D1117"}
# severity 1 of Machado, Oliveira and Fernandes (2009), on linear RGB
BLIND = {
    "none": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def draw(axes):
    axes.plot([1, 2], [3, 4], label="a < b")
    axes.set_title("R@1 & more")
    legend(axes)


def test_both_pages_are_written_and_nothing_else(tmp_path):
    save(draw, tmp_path / "new" / "figure.svg")
    save(draw, tmp_path / "new" / "v1.2.svg", size=(2, 1))
    names = ["figure.dark.svg", "figure.svg", "v1.2.dark.svg", "v1.2.svg"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names


def test_text_is_text_and_pages_differ_in_ink_and_colours(tmp_path):
    save(draw, tmp_path / "figure.svg")
    tree = ElementTree.parse(tmp_path / "figure.svg")
    texts = [node.text for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"R@1 & more", "a < b"} <= set(texts)
    light, dark = ((tmp_path / f"figure{page}.svg").read_text() for page in ("", ".dark"))
    assert COLOURS["light"][0].lower() in light and COLOURS["light"][0].lower() not in dark
    assert COLOURS["dark"][0].lower() in dark


def test_the_same_bytes_whatever_the_settings_of_the_process(tmp_path):
    """And the settings are left alone."""
    save(draw, tmp_path / "figure.svg")
    first = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with matplotlib.rc_context({"axes.linewidth": 5, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        save(draw, tmp_path / "figure.svg")
        assert dict(matplotlib.rcParams) == before
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == first


def test_pyplot_is_not_imported(tmp_path):
    code = (
        "import sys; from ascl_plugin.report.plots import save; "
        f"save(lambda axes: axes.plot([1, 2]), {str(tmp_path / 'a.svg')!r}); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_failed_drawing_leaves_the_last_one(tmp_path):
    save(draw, tmp_path / "figure.svg")
    before = (tmp_path / "figure.svg").read_bytes()
    with pytest.raises(ZeroDivisionError):
        save(lambda axes: 1 / 0, tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.svg, got 'figure\.pdf'"):
        save(draw, tmp_path / "figure.pdf")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"ascl-plugin\[report\]"):
        save(draw, tmp_path / "figure.svg")


@pytest.mark.parametrize("page", COLOURS)
def test_colours_stand_out_from_the_page_and_from_each_other(page):
    for colour in COLOURS[page]:
        bright, faint = sorted((_light(colour), _light(PAGES[page])), reverse=True)
        assert (bright + 0.05) / (faint + 0.05) >= 3, colour
    for name, matrix in BLIND.items():
        seen = {c: _lab(np.asarray(matrix) @ _linear(c)) for c in COLOURS[page]}
        for one, other in itertools.combinations(seen, 2):
            assert np.linalg.norm(seen[one] - seen[other]) > 35, (name, one, other)


def test_lines_have_a_band_where_there_are_deviations(tmp_path):
    def check(axes):
        lines(axes, [1, 2], {"a": [(1.0, 0.5), (2.0, 0.25)], "b": [(3.0, None), (4.0, None)]})
        (band,) = axes.collections
        assert np.allclose(sorted(set(band.get_paths()[0].vertices[:, 1])), [0.5, 1.5, 1.75, 2.25])
        assert [list(line.get_ydata()) for line in axes.lines] == [[1, 2], [3, 4]]

    save(check, tmp_path / "lines.svg")


def test_a_name_with_dollars_is_no_formula(tmp_path):
    for name in (r"$\frac{$", "a$b$c"):
        save(lambda axes, name=name: axes.set_title(name), tmp_path / "a.svg")
        assert name in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize("name", ["_hidden", "shown"])
def test_every_run_is_in_the_legend(tmp_path, name):
    def check(axes):
        lines(axes, [1], {name: [(1.0, None)]})
        legend(axes)
        assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == [name]

    save(check, tmp_path / "a.svg")


def test_panels_stand_side_by_side(tmp_path):
    def check(axes):
        left, right = panels(axes, 2)
        assert axes.figure is None and left.figure.axes == [left, right]
        assert left.get_position().x1 < right.get_position().x0

    save(check, tmp_path / "panels.svg")


def _linear(colour):
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _light(colour):
    return _linear(colour) @ [0.2126, 0.7152, 0.0722]


def _lab(linear):
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.clip(matrix @ np.clip(linear, 0, 1) / [0.9505, 1, 1.089], 0.008856, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
