"""Annotation files in JSON: their content, and fields whose absence is named with the entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Json = Any  # anything that JSON holds


def load_json(path: Path) -> Json:
    """Return the content of a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON; the message names file and line.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON, line {error.lineno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not JSON, byte {error.start} is no UTF-8") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; brackets in brackets
        raise ValueError(f"{path}: not JSON that is read: {error}") from error


def field(entry: Json, name: str, where: object, kind: type = object) -> Json:
    """Return `entry[name]`.

    Raises:
        KeyError: there is no such field; `where` names the entry.
        ValueError: the entry is no object, or the field not of its kind.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected an object with {name!r}, got {type(entry).__name__}")
    if name not in entry:
        raise KeyError(f"{where}: field {name!r} is missing; it has {', '.join(entry) or 'none'}")
    if not isinstance(entry[name], kind):
        found = type(entry[name]).__name__
        raise ValueError(f"{where}: {name!r} is a {found}, expected a {kind.__name__}")
    return entry[name]
