"""A report as one HTML page that holds all it shows: no network, no script."""

from __future__ import annotations

import base64
from pathlib import Path

from ascl_plugin._version import __version__
from ascl_plugin.report import cells
from ascl_plugin.report.build import inside, relative_link
from ascl_plugin.report.document import Document

_HERE = Path(__file__).parent
_KINDS = {".svg": "svg+xml", ".png": "png", ".jpg": "jpeg"}


def html_page(document: Document, folder: Path) -> str:
    """The page; figures and pictures are in it, raw files are linked.

    Every text is escaped, so that what looks like a tag in a caption or a command stays text.

    Args:
        document: of `build_report`.
        folder: the page is to lie in; links are relative to it.

    Raises:
        ImportError: no jinja2.
        FileNotFoundError, ValueError: a picture that is not there, or of another format than svg,
            png, jpg.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError('an HTML report needs `pip install "ascl-plugin[report]"`') from error
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string((_HERE / "page.html").read_text(encoding="utf-8"))
    return template.render(
        document=document,
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        version=__version__,
        texts=cells.texts,
        numeric=cells.numeric,
        leaks=cells.leaks,
        table_leaks=cells.table_leaks,
        leak_note=cells.LEAK_NOTE,
        data_uri=data_uri,
        picture=lambda where, name: data_uri(inside(where, name)),
        link=lambda path: relative_link(path, folder),
    )


def data_uri(path: Path) -> str:
    """A picture as text that stands where its address would.

    Raises:
        ValueError: neither svg, png nor jpg.
    """
    if path.suffix not in _KINDS:
        raise ValueError(f"{path}: expected a figure in {', '.join(_KINDS)}")
    content = base64.b64encode(path.read_bytes()).decode()
    return f"data:image/{_KINDS[path.suffix]};base64,{content}"
