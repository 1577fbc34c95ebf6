"""The pages: addresses in, HTML and pictures out; no part of a request is a path or is executed."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from ascl_plugin.data.images import load_image
from ascl_plugin.demo.gallery import Attention, Gallery
from ascl_plugin.demo.regions import encoder_view

try:
    import python_multipart  # noqa: F401, reads an uploaded picture
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.datastructures import MutableHeaders, UploadFile
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, Response
    from starlette.routing import Route
    from starlette.templating import Jinja2Templates
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise ImportError('the demo needs `pip install "ascl-plugin[demo]"`') from error

FOLDER = Path(__file__).parent
MAX_QUERY = 500  # characters
MAX_SIDE = 800  # pixels of a picture that is served
MAX_UPLOAD = 32 * 2**20  # bytes of a picture that is sent
PAGE = 24  # pictures on the first page, and each that follows
HOSTS = ("127.0.0.1", "localhost")  # any other name leads here by DNS rebinding alone
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; "
    "script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # the same address may serve another run next time
}


def make_app(gallery: Gallery, title: str) -> Starlette:
    """Return the application, with a title for all pages: run and split."""
    pages = Pages(gallery, title)
    routes = [
        Route("/", pages.home),
        Route("/search", pages.search),
        Route("/image/{row}", pages.image),
        Route("/captions", pages.captions, methods=["POST"]),
        Route("/pair/{row}", pages.pair),
        Route("/picture/{row}", pages.picture),
        Route("/view/{row}", pages.view),
        *(Route(f"/{name}", _file(name)) for name in ("demo.css", "attention.js", "icon.svg")),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    return Starlette(
        routes=routes,
        middleware=[Middleware(with_headers), hosts],
        exception_handlers={HTTPException: pages.error},
    )


class Pages:
    """Requests answered from a gallery. A text is `q`, any words, or `text`, a caption's number."""

    def __init__(self, gallery: Gallery, title: str) -> None:
        self.gallery = gallery
        self.templates = Jinja2Templates(FOLDER / "templates")  # escapes what it is given
        self.templates.env.globals.update(title=title, gallery=gallery, max_query=MAX_QUERY)

    def home(self, request: Request) -> Response:
        """Answer with the first page."""
        page = _number(request, "page", 1)
        rows = range(len(self.gallery))[(page - 1) * PAGE : page * PAGE] if page else range(0)
        if not rows:
            raise HTTPException(404, "There is no such page.")
        return self._page(request, "home", rows=rows, page=page)

    def search(self, request: Request) -> Response:
        """Answer with pictures for a text."""
        text, link = self._text(request)
        before, after = self.gallery.pictures(text)
        typed = "q" in link
        return self._page(
            request, "search", text=text, link=link, before=before, after=after, typed=typed,
            unknown=self.gallery.unknown(text),
        )  # fmt: skip

    def image(self, request: Request) -> Response:
        """Answer with captions for a picture."""
        row = self._row(request)
        before, after = self.gallery.captions(row)
        return self._page(request, "image", row=row, before=before, after=after)

    async def captions(self, request: Request) -> Response:
        """Answer with captions for a picture that is sent; nothing of it is kept."""
        if not self.gallery.takes_pictures:
            raise HTTPException(404, "Pictures of your own cannot be searched with here.")
        size = request.headers.get("content-length", "")
        if not _is_number(size) or int(size) > MAX_UPLOAD:
            raise HTTPException(413, f"A picture has {MAX_UPLOAD // 2**20} MB at most.")
        async with request.form(max_files=1, max_fields=4) as form:
            sent = form.get("picture")
            data = await sent.read() if isinstance(sent, UploadFile) else b""
        return await run_in_threadpool(self._captions, request, data, form.get("rerank") == "1")

    def _captions(self, request: Request, data: bytes, switched: bool) -> Response:
        try:
            picture = load_image({"bytes": data}, "sent")
        except ValueError as error:
            raise HTTPException(400, "Choose a picture: a JPEG, PNG, ...") from error
        before, after = self.gallery.captions_of(picture)
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
        shown = base64.b64encode(bytes(_jpeg(picture).body)).decode()
        return self._page(
            request, "upload", before=before, after=after, shown=shown, switched=switched
        )

    def pair(self, request: Request) -> Response:
        """Answer with the attention of a pair."""
        row, (text, link) = self._row(request), self._text(request)
        attention = self.gallery.attention(row, text)
        return self._page(
            request, "pair", row=row, text=text, link=link, attention=attention,
            score=self.gallery.score(row, text), weights=attention and _weights(attention),
        )  # fmt: skip

    def picture(self, request: Request) -> Response:
        """Answer with the picture of a row."""
        picture = self.gallery.picture(self._row(request))
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
        return _jpeg(picture)

    def view(self, request: Request) -> Response:
        """Answer with the picture of a row as the encoder sees it."""
        encoder = self.gallery.evaluator.model.image_encoder
        return _jpeg(encoder_view(encoder, self.gallery.picture(self._row(request))))

    def error(self, request: Request, error: Exception) -> Response:
        """Answer with the error of a request."""
        assert isinstance(error, HTTPException)
        return self._page(request, "error", error.status_code, message=error.detail)

    def _page(self, request: Request, name: str, status: int = 200, **values: object) -> Response:
        values["rerank"] = request.query_params.get("rerank") == "1"
        return self.templates.TemplateResponse(request, f"{name}.html", values, status)

    def _row(self, request: Request) -> int:
        text = request.path_params["row"]
        if not _is_number(text) or int(text) >= len(self.gallery):
            raise HTTPException(404, f"There are {len(self.gallery)} pictures.")
        return int(text)

    def _text(self, request: Request) -> tuple[str, dict[str, object]]:
        """Return the text of a request, and the parameters of a link to it."""
        if "text" in request.query_params:
            number = _number(request, "text", 0)
            if not 0 <= number < len(self.gallery.texts):
                raise HTTPException(404, f"There are {len(self.gallery.texts)} captions.")
            return self.gallery.texts[number], {"text": number}
        text = request.query_params.get("q", "").strip()
        if not text:
            raise HTTPException(400, "Type some words to search by.")
        if len(text) > MAX_QUERY:
            raise HTTPException(400, f"A query has {MAX_QUERY} characters at most.")
        return text, {"q": text}


def with_headers(app: ASGIApp) -> ASGIApp:
    """Return middleware that adds `HEADERS` to every answer."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await app(scope, receive, sent)

    return answer


def _weights(attention: Attention) -> dict[str, object]:
    boxes = attention.regions.boxes
    return {
        "words": attention.words,
        "boxes": None if boxes is None else boxes.round(4).tolist(),
        "wordsToRegions": attention.words_to_regions.double().round(decimals=4).tolist(),
        "regionsToWords": attention.regions_to_words.double().round(decimals=4).tolist(),
    }


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not _is_number(text):
        raise HTTPException(400, f"{name} is a number.")
    return int(text)


def _is_number(text: str) -> bool:
    """Return True for few enough digits for Python; starlette's own `int` takes any number."""
    return text.isascii() and text.isdigit() and len(text) < 10


def _jpeg(picture: Image.Image) -> Response:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=90)
    return Response(data.getvalue(), media_type="image/jpeg")


def _file(name: str) -> Callable[[Request], Response]:
    return lambda request: FileResponse(FOLDER / "templates" / name)
