"""A small split with a model that has learned nothing, and its pages served to this machine."""

from __future__ import annotations

import http.client
import threading
import time

import pytest
import torch

HOSTILE = """<script>alert('a')</script> & "red" car"""


def make_model(fusion="cross_modal", captions=(HOSTILE,), **options):
    from ascl_plugin.retrieval.encoders import WordTransformer
    from ascl_plugin.retrieval.model import RetrievalModel

    torch.manual_seed(0)
    return RetrievalModel(
        {"name": "grid", "width": 16, "grid": 3},
        {
            "name": "transformer", "width": 16,
            "vocabulary": WordTransformer.vocabulary(captions),
        },
        {"name": fusion, **options},
        dim=16,
    ).eval()  # fmt: skip


def make_gallery(model, rows, **rerank_options):
    from ascl_plugin.demo.gallery import Gallery
    from ascl_plugin.retrieval.evaluator import Evaluator
    from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs

    evaluator = Evaluator(
        model, ImageInputs(model.image_encoder), TextInputs(model.text_encoder), 5
    )
    return Gallery(evaluator, rows, rerank_options)


@pytest.fixture(scope="session")
def rows():
    """30 scenes, every caption of which ends in HTML."""
    pytest.importorskip("datasets", reason="extra `recipes`")
    from ascl_plugin.data import scenes

    made = scenes.make("test", 30, 0)

    def hostile(row):
        return {"captions": [f"{caption} {HOSTILE}" for caption in row["captions"]]}

    return made.map(hostile)


@pytest.fixture(scope="session")
def model(rows):
    """With two heads."""
    captions = [text for several in rows["captions"][:] for text in several]
    return make_model(captions=captions, num_heads=2)


@pytest.fixture(scope="session")
def gallery(model, rows):
    return make_gallery(model, rows, k=20)


class Served:
    """Asks a running server."""

    def __init__(self, port):
        self.port = port
        self.address = f"http://127.0.0.1:{port}"

    def get(self, path, **headers):
        """Status, headers and body; the path goes out as it is."""
        return self.ask("GET", path, None, headers)

    def post(self, path, picture, **fields):
        """Status, headers and body of a form with a picture's bytes, as a browser sends it."""
        parts = [(f'name="{name}"', text.encode()) for name, text in fields.items()]
        parts.append(('name="picture"; filename="own.png"', picture))
        body = b"".join(
            b"--x\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (name.encode(), data)
            for name, data in parts
        )
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        return self.ask("POST", path, body + b"--x--\r\n", kind)

    def ask(self, verb, path, body, headers):
        """Status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(verb, path, body, headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, answer.headers, body


@pytest.fixture(scope="session")
def serving():
    """A function that serves a gallery until the tests end."""
    pytest.importorskip("starlette", reason="extra `demo`")
    pytest.importorskip("uvicorn", reason="extra `demo`")
    from ascl_plugin.commands.demo import listen
    from ascl_plugin.demo.pages import make_app
    from ascl_plugin.demo.server import make_server

    running = []

    def start(gallery):
        listener = listen(0)
        server = make_server(make_app(gallery, "tiny, test split"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        running.append((server, thread))
        return Served(listener.getsockname()[1])

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def served(serving, gallery):
    return serving(gallery)
