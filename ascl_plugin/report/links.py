"""Links from a report to the files it was made of."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote


def relative_link(path: Path, folder: Path) -> str:
    """The address of `path` on a page that lies in `folder`, percent-encoded.

    >>> from pathlib import Path
    >>> from ascl_plugin.report.links import relative_link
    >>> relative_link(Path("runs/a b/log.jsonl"), Path("reports"))
    '../runs/a%20b/log.jsonl'
    """
    return quote(Path(os.path.relpath(path, folder)).as_posix())
