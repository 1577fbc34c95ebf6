"""`ascl demo` as a user runs it."""

from __future__ import annotations

import html
import re
import sys
import urllib.request

import pytest

pytest.importorskip("datasets", reason="extra `recipes`")
pytest.importorskip("uvicorn", reason="extra `demo`")
from served import served

from ascl_plugin.commands.demo import listen
from ascl_plugin.commands.main import main

from ..demo.conftest import make_model


@pytest.mark.recipe
def test_a_run_is_served_until_it_is_interrupted(tmp_path):
    make_model().save_pretrained(tmp_path / "best")
    (tmp_path / "config.yaml").write_text("data_root: null\nscenes_val: 7\nrerank_k: 5\n")
    words = ["demo", tmp_path, "--split", "val", "--limit", "6", "--port", "0"]
    command = [sys.executable, "-m", "ascl_plugin.commands.main", *words]
    with served(command) as (address, errors):
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=20) as answer:
            page = answer.read().decode()
        assert "Search 6 pictures by words" in page and "val split" in page
    assert "Traceback" not in errors[0] and "encoding captions" in errors[0]


def test_only_this_machine_is_listened_to():
    with listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    with listen(0) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", str(tmp_path), "--port", str(port)]) == 2
    assert f"--port {port}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--port", "0"], "no model here"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--batch_size", "0"], "--batch_size must be at least 1"),
        (["--port", "70000"], "--port must be from 0 to 65535"),
    ],
)
def test_what_cannot_be_shown(tmp_path, capsys, words, told):
    assert main(["demo", str(tmp_path), *words]) == 2
    assert told in capsys.readouterr().err


def test_a_missing_library_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    monkeypatch.delitem(sys.modules, "ascl_plugin.demo.pages", raising=False)
    assert main(["demo", str(tmp_path)]) == 2
    assert 'pip install "ascl-plugin[demo]"' in capsys.readouterr().err


def test_a_folder_of_pictures_without_captions(tmp_path, monkeypatch, png):
    """Searched by words; nothing is re-ranked, and nothing asks for captions."""
    client = pytest.importorskip("starlette.testclient", reason="extra `demo`").TestClient
    make_model(captions=["a red car"]).save_pretrained(tmp_path / "model")
    names = ["2020/b.JPG", "2020/c.jpeg", "a.png"]
    for number, name in enumerate(names):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(png(number))
    served = []
    monkeypatch.setattr("ascl_plugin.demo.server.serve", lambda app, _: served.append(app))
    words = ["demo", tmp_path / "model", "--image_root", tmp_path / "photos", "--port", "0"]
    assert main([str(word) for word in words]) == 0
    get = client(served[0], base_url="http://localhost").get
    home = get("/").text
    assert "Search 3 pictures by words" in home and "re-rank<" not in home
    found = get("/search?q=a+red+car&rerank=1").text
    assert all(name in found for name in names) and "After" not in found and "Re-rank" not in found
    assert names[1] in get("/image/1").text and names[2] in get("/pair/2?q=red").text
    for page in (home, found, get("/pair/2?q=red").text):
        for address in re.findall(r'(?:href|src)="(/[^"]*)"', page):
            assert get(html.unescape(address)).status_code == 200, address
    assert get("/search?text=0").status_code == 404
