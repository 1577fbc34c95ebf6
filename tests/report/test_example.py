"""The example of a report in docs/, in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "example_report.html"


def size(page):
    shown = "const all = document.documentElement; return [all.scrollWidth, all.scrollHeight]"
    return page.execute_script(shown)


@pytest.mark.parametrize(("width", "height"), [(390, 20_000), (1280, 8_000)])
def test_example_fits_its_page(browser, set_width, width, height):
    set_width(browser, width)
    browser.get(EXAMPLE.as_uri())
    assert size(browser)[0] <= width
    assert size(browser)[1] <= height
