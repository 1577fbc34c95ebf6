"""The pages over HTTP: what they say, and what they refuse."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from PIL import Image

from .conftest import HOSTILE, make_gallery, make_model

pages = pytest.importorskip("ascl_plugin.demo.pages", reason="extra `demo`", exc_type=ImportError)

PAGES = [
    "/", "/?page=2", "/search?q=a+red+car", "/search?q=a+red+car&rerank=1", "/search?text=10",
    "/search?text=10&rerank=1", "/image/5", "/image/5?rerank=1", "/pair/2?text=10",
]  # fmt: skip


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, body):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(body.decode())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag, name):
        return [values.get(name) for found, values in self.tags if found == tag]


@pytest.mark.parametrize("path", PAGES)
def test_every_link_and_file_of_a_page_is_there(served, path):
    status, _, body = served.get(path)
    assert status == 200
    page = Page(body)
    addresses = page.all("a", "href") + page.all("img", "src") + page.all("script", "src")
    addresses += page.all("link", "href")
    assert addresses
    for address in set(filter(None, addresses)):
        assert address.startswith("/")  # nothing from elsewhere
        assert served.get(address)[0] == 200, address


def test_results_stand_in_order_before_and_after(served, gallery):
    """Re-ranking is a switch, off by default; typed words are judged alone."""

    def found(path):
        page = Page(served.get(path)[2])
        links = [x for x in page.all("a", "href") if "/pair" in x]
        return page.text, [int(x.split("/")[2].split("?")[0]) for x in links]

    before, after = gallery.pictures("a red car")
    text, rows = found("/search?q=a+red+car")
    assert rows == [hit.item for hit in before] and "After" not in text
    text, rows = found("/search?q=a+red+car&rerank=1")
    assert rows == [hit.item for hit in before + after]
    assert "Other queries do not matter" in text and "Transductive" not in text
    assert "its own" not in text
    assert "Transductive" in found("/search?text=10&rerank=1")[0]
    assert len(found("/image/5")[1]) == 10 and len(found("/image/5?rerank=1")[1]) == 20


def test_right_captions_are_marked(served, gallery):
    counts = []
    for row in range(10):
        right = [hit for hits in gallery.captions(row) for hit in hits if hit.right]
        counts.append(len(right))
        assert Page(served.get(f"/image/{row}?rerank=1")[2]).text.count("✓ its own") == counts[-1]
    assert max(counts) > 0


def test_weights_of_a_pair(served, gallery):
    body = served.get("/pair/2?q=a+red+car")[2].decode()
    data = json.loads(re.search(r'id="weights">(.*?)</script>', body, re.DOTALL)[1])
    found = gallery.attention(2, "a red car")
    assert data["words"] == ["a", "red", "car"] and len(data["boxes"]) == 9
    assert data["wordsToRegions"][1] == pytest.approx(found.words_to_regions[1], abs=1e-4)
    assert data["regionsToWords"][8] == pytest.approx(found.regions_to_words[8], abs=1e-4)


def test_no_attention_is_said(serving, rows):
    served = serving(make_gallery(make_model("pooled"), rows.select(range(3))))
    assert 'id="no-attention"' in served.get("/pair/0?q=a")[2].decode()
    for path in ("/search?q=a", "/image/0?rerank=1"):
        assert "look at" not in served.get(path)[2].decode()


def encoded(picture, kind="PNG"):
    data = io.BytesIO()
    picture.save(data, kind)
    return data.getvalue()


def test_captions_for_a_picture_of_ones_own(served, gallery):
    """A picture of the split, sent, gets the captions that it has there; re-ranking is a switch."""
    own = encoded(gallery.picture(5))
    status, _, body = served.post("/captions", own)
    assert status == 200
    page, (before, after) = Page(body), gallery.captions_of(gallery.picture(5))
    assert [hit.item for hit in before] == [hit.item for hit in gallery.captions(5)[0]]
    links = [x for x in page.all("a", "href") if "/search?text=" in x]
    assert links == [f"/search?text={hit.item}" for hit in before] and "After" not in page.text
    shown = page.all("img", "src")[0].removeprefix("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(shown))).format == "JPEG"
    page = Page(served.post("/captions", own, rerank="1")[2])
    links = [x for x in page.all("a", "href") if "/search?text=" in x]
    assert links == [f"/search?text={hit.item}" for hit in before + after]


@pytest.mark.parametrize("data", [b"", b"no picture", encoded(Image.new("L", (9, 9)))[:40]])
def test_what_is_no_picture_is_refused(served, data):
    status, _, body = served.post("/captions", data)
    assert status == 400 and "Choose a picture" in Page(body).text


def test_a_picture_has_a_size(served, monkeypatch):
    monkeypatch.setattr(pages, "MAX_UPLOAD", 1000)
    assert served.post("/captions", bytes(1001))[0] == 413
    assert served.get("/captions")[0] == 405


def test_without_captions_nothing_is_uploaded(serving, rows):
    alone = make_gallery(make_model(), rows.select(range(2)).map(lambda row: {"captions": []}))
    served = serving(alone)
    assert "of your own" not in Page(served.get("/")[2]).text
    assert served.post("/captions", encoded(Image.new("L", (9, 9))))[0] == 404


def test_unknown_words_are_named(served):
    assert "Unknown to the model: zebra" in Page(served.get("/search?q=a+zebra,+zebra")[2]).text
    assert "Unknown" not in Page(served.get("/search?q=a+red+car")[2]).text


def test_pictures_are_counted_from_one(served):
    assert "Pictures 1 to 24" in Page(served.get("/")[2]).text
    assert "Captions for picture 6" in Page(served.get("/image/5")[2]).text


@pytest.mark.parametrize(
    "path", ["/", "/search?text=10", "/image/5", "/pair/2?text=10", f"/pair/2?q={quote(HOSTILE)}",
             f"/search?q={quote(HOSTILE)}"]
)  # fmt: skip
def test_html_in_captions_and_queries_stays_text(served, path):
    body = served.get(path)[2]
    assert b"<script>alert" not in body and b"alert('a')</script>" not in body
    assert all(x in (None, "/attention.js") for x in Page(body).all("script", "src"))
    assert HOSTILE in Page(body).text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/image/30", 404),
        ("/image/-1", 404),
        (f"/image/{'9' * 5000}", 404),
        (f"/?page={'9' * 5000}", 400),
        ("/picture/30", 404),
        ("/picture/../../etc/passwd", 404),
        ("/picture/%2e%2e%2fdemo.css", 404),
        ("/templates/base.html", 404),
        ("/base.html", 404),
        ("/?page=3", 404),
        ("/?page=0", 404),
        ("/?page=x", 400),
        ("/search", 400),
        ("/search?q=+", 400),
        (f"/search?q={'a' * 501}", 400),
        (f"/search?q={'a' * 500}", 200),
        (f"/pair/0?q={'a+' * 249}", 200),
        ("/search?text=150", 404),
        ("/search?text=1e3", 400),
        ("/search?text=%D9%A3", 400),
        ("/pair/2", 400),
    ],
)
def test_what_is_refused_and_what_just_is_not(served, path, status):
    assert served.get(path)[0] == status


def test_other_hosts_are_refused(served):
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[::1]"):
        assert served.get("/", Host=host)[0] == served.get("/picture/0", Host=host)[0] == 400
    for host in ("127.0.0.1", "localhost", f"localhost:{served.port}"):
        assert served.get("/", Host=host)[0] == 200


@pytest.mark.parametrize("path", ["/", "/picture/0", "/demo.css", "/search", "/nothing"])
def test_headers_are_on_every_answer(served, path):
    headers = served.get(path)[1]
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_pictures_are_those_of_the_rows(served, gallery):
    for path, size in (("/picture/3", gallery.picture(3).size), ("/view/3", (48, 48))):
        status, headers, body = served.get(path)
        assert status == 200 and headers["Content-Type"] == "image/jpeg"
        assert Image.open(io.BytesIO(body)).size == size
