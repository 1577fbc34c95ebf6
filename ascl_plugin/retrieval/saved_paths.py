"""Paths of pretrained parts in a saved model's `config.json`: relative ones start at its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ascl_plugin.interfaces import NamedOptions

_PREFIX = "local-dir:"  # of open_clip's names


def paths_from(folder: str | Path, options: NamedOptions) -> NamedOptions:
    """Return a component's options with relative paths that are there, as seen from a folder."""

    def seen(path: str) -> str:
        return os.path.relpath(path, folder) if os.path.exists(path) else path

    return _changed(options, seen)


def paths_found(folder: str | Path, options: NamedOptions) -> NamedOptions:
    """Return a component's options with the paths that are found from a folder, made absolute."""

    def found(path: str) -> str:
        beside = os.path.abspath(os.path.join(folder, path))
        return beside if os.path.exists(beside) else path

    return _changed(options, found)


def paths_lost(options: NamedOptions) -> list[str]:
    """Return the values that would be relative paths, and are not there."""
    values = [path for _, _, path in _relative(options)]
    return [path for path in values if not os.path.exists(path)]


def _relative(options: NamedOptions) -> Iterator[tuple[str, str, str]]:
    """Yield name, prefix and path of the values that may be relative paths: they have a slash."""
    for name, value in options.items():
        if isinstance(value, str) and name != "name":
            prefix = _PREFIX if value.startswith(_PREFIX) else ""
            path = value.removeprefix(prefix)
            if os.path.dirname(path) and not os.path.isabs(path) and ":" not in path:
                yield name, prefix, path


def _changed(options: NamedOptions, change: Callable[[str], str]) -> NamedOptions:
    return {**options, **{n: prefix + change(path) for n, prefix, path in _relative(options)}}
