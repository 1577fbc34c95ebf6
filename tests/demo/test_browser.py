"""The pages in Chromium: search, attention by mouse and by keys, and no word to anyone else."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("selenium", reason="extra `test`")
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait


@pytest.fixture
def page(browser, served):
    """The first page; in the end nothing has gone wrong in it, and nobody else was asked."""
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(served.address)
    yield browser
    messages = [json.loads(x["message"])["message"] for x in browser.get_log("performance")]
    asked = [
        x["params"]["request"]["url"]
        for x in messages
        if x["method"] == "Network.requestWillBeSent"
        and x["params"]["documentURL"].startswith("http")  # not of the browser's own pages
    ]
    assert asked and not [url for url in asked if not url.startswith(f"{served.address}/")]
    assert not browser.get_log("browser")


def follow(page, element, *keys):
    """Clicks, or types, and waits until the next page has come whole."""
    old = page.find_element(By.TAG_NAME, "html")
    if keys:
        element.send_keys(*keys)
    else:
        element.click()
    wait = WebDriverWait(page, 60, ignored_exceptions=[WebDriverException])
    wait.until(staleness_of(old))
    wait.until(lambda p: p.execute_script("return document.readyState") == "complete")


def heat(item):
    shade = "return arguments[0].style.getPropertyValue('--heat')"
    return float(item.parent.execute_script(shade, item))


def test_search_and_attention(page, gallery):
    follow(page, page.find_element(By.ID, "q"), "a red car", Keys.ENTER)
    assert page.find_element(By.TAG_NAME, "h1").text == "Pictures for a red car"
    cards = page.find_elements(By.CSS_SELECTOR, ".pictures li a:has(img)")
    assert len(cards) == 10
    assert all(
        page.execute_script(
            "return arguments[0].naturalWidth", card.find_element(By.TAG_NAME, "img")
        )
        for card in cards
    )
    follow(page, cards[0])

    row = gallery.pictures("a red car")[0][0].item
    found = gallery.attention(row, "a red car")
    words = page.find_elements(By.CSS_SELECTOR, ".word")
    regions = page.find_elements(By.CSS_SELECTOR, ".region")
    assert [word.text for word in words] == ["a", "red", "car"] and len(regions) == 9

    words[1].click()
    weights = found.words_to_regions[1]
    expected = (weights / weights.max()).tolist()
    assert [heat(region) for region in regions] == pytest.approx(expected, abs=2e-3)
    assert "“red” looks most at region" in page.find_element(By.ID, "told").text

    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert words[2].find_element(By.TAG_NAME, "input").is_selected()
    weights = found.words_to_regions[2]
    assert heat(regions[0]) == pytest.approx(float(weights[0] / weights.max()), abs=2e-3)

    regions[4].click()
    weights = found.regions_to_words[4]
    expected = (weights / weights.max()).tolist()
    assert [heat(word) for word in words] == pytest.approx(expected, abs=2e-3)
    assert not any(heat(region) for region in regions)


def test_boxes_lie_on_the_picture(page, served):
    page.get(f"{served.address}/pair/2?text=11")
    picture = page.find_element(By.CSS_SELECTOR, ".seen img").rect
    for number, region in enumerate(page.find_elements(By.CSS_SELECTOR, ".region")):
        down, across = divmod(number, 3)
        assert region.rect["x"] == pytest.approx(
            picture["x"] + across * picture["width"] / 3, abs=2
        )
        assert region.rect["y"] == pytest.approx(picture["y"] + down * picture["height"] / 3, abs=2)
        assert region.rect["width"] == pytest.approx(picture["width"] / 3, abs=2)


def test_captions_of_a_picture_by_keys_alone(page, gallery):
    def right(row):
        return [[hit.right for hit in hits] for hits in gallery.captions(row)]

    row = next(row for row in range(len(gallery)) if all(map(any, right(row))))
    follow(page, page.find_element(By.CSS_SELECTOR, f'a[href="/image/{row}"]'), Keys.ENTER)
    assert len(page.find_elements(By.CSS_SELECTOR, "ol.captions li")) == 10
    follow(page, page.find_element(By.LINK_TEXT, "Re-rank"), Keys.ENTER)
    shown = [
        [item.get_attribute("class") == "own" for item in captions.find_elements(By.TAG_NAME, "li")]
        for captions in page.find_elements(By.CSS_SELECTOR, "ol.captions")
    ]
    assert shown == right(row)


@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_sticks_out_of_the_page(page, served, set_width, width):
    set_width(page, width)
    for path in ("/", "/search?text=10&rerank=1", "/image/5?rerank=1", "/pair/2?text=11"):
        page.get(served.address + path)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width, path
