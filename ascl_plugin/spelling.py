"""Suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(
    name: str, known: Iterable[str], others: Iterable[str] = (), cutoff: float = 0.6
) -> str:
    """Return " (did you mean 'grid'?)" for the nearest known name, upper case or lower; else "".

    Args:
        name: the name that is not known.
        known: the names to choose from.
        others: names to take, the first first, if none of `known` is near.
        cutoff: the least likeness, 0 to 1, as in `difflib.get_close_matches`.
    """
    written = {k.lower(): k for k in known}
    near = [written[k] for k in difflib.get_close_matches(name.lower(), written, 1, cutoff)]
    near += others
    return f" (did you mean {near[0]!r}?)" if near else ""
