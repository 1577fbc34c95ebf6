"""A report as one HTML page that holds all it shows: no network, no script."""

from __future__ import annotations

import base64
from pathlib import Path

from ascl_plugin._version import __version__
from ascl_plugin.report.document import Document, inside, relative_link
from ascl_plugin.report.table import LEAK_NOTE

_HERE = Path(__file__).parent
_KINDS = {".svg": "svg+xml", ".png": "png", ".jpg": "jpeg"}


def html_page(document: Document, folder: Path) -> str:
    """Return the page; figures and pictures are in it, raw files are linked.

    Every text is escaped, so that tags in a caption or a command stay text.

    Args:
        document: the report.
        folder: the folder of the page; links are relative to it.

    Raises:
        ImportError: no jinja2.
        FileNotFoundError, ValueError: a picture is not there, or is neither svg, png nor jpg.
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
        leak_note=LEAK_NOTE,
        data_uri=data_uri,
        picture=lambda where, name: data_uri(inside(where, name)),
        link=lambda path: relative_link(path, folder),
    )


def data_uri(path: Path) -> str:
    """Return a picture as text that stands in place of its address."""
    if path.suffix not in _KINDS:
        raise ValueError(f"{path}: expected a figure in {', '.join(_KINDS)}")
    content = base64.b64encode(path.read_bytes()).decode()
    return f"data:image/{_KINDS[path.suffix]};base64,{content}"
