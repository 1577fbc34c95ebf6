"""Names of gallery items, as vector databases have them, to and from the ids of lists."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from ascl_plugin.scores import Array

Name = Hashable
Hits = Mapping[Name, float] | Sequence[tuple[Name, float]]


class ItemNames:
    """The names of a gallery; item i is the i-th, as column i of a matrix.

    Args:
        names: strings or other hashable values, each once.

    Raises:
        ValueError: no name, or a name twice.

    Examples:
        >>> from ascl_plugin import ItemNames
        >>> texts = ItemNames(["a dog", "a cat", "a car"])
        >>> ids, scores = texts.pack([[("a cat", 0.9), ("a dog", 0.4)], [("a car", 0.7)]])
        >>> ids
        array([[ 1,  0],
               [ 2, -1]])
        >>> texts.unpack(ids, scores)[1]
        [('a car', 0.7)]
    """

    def __init__(self, names: Iterable[Name]) -> None:
        self.names = list(names)
        self._place = {name: place for place, name in enumerate(self.names)}
        if not self.names:
            raise ValueError("ItemNames: no names")
        if len(self._place) < len(self.names):
            twice = next(n for i, n in enumerate(self.names) if self._place[n] != i)
            raise ValueError(f"ItemNames: {twice!r} occurs twice")

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.names)

    def pack(self, results: Iterable[Hits]) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and scores (Q, K) of results of any length; -1 and NaN fill empty slots.

        Args:
            results: for each query, pairs of name and score, or a mapping; sorted here from high to
                low, equal ones as given.

        Raises:
            ValueError: no results at all; a name that is none of the gallery's.
        """
        rows = [list(r.items() if isinstance(r, Mapping) else r) for r in results]
        width = max(map(len, rows), default=0)
        if not width:
            raise ValueError("ItemNames.pack: no query has a result")
        ids, scores = np.full((len(rows), width), -1), np.full((len(rows), width), np.nan)
        for query, row in enumerate(rows):
            for place, (name, score) in enumerate(sorted(row, key=lambda hit: -hit[1])):
                if name not in self._place:
                    raise ValueError(
                        f"ItemNames.pack: query {query} found {name!r}, which is none of the "
                        f"{len(self)} names; list the whole gallery"
                    )
                ids[query, place], scores[query, place] = self._place[name], score
        return ids, scores

    def unpack(self, ids: Array, scores: Array) -> list[list[tuple[Name, float]]]:
        """Return the results of each query as pairs of name and score, without empty slots."""
        return [
            [(self.names[i], s) for i, s in zip(row, values, strict=True) if i >= 0]
            for row, values in zip(ids.tolist(), scores.tolist(), strict=True)
        ]
