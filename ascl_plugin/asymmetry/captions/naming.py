"""The chance that a thing is in an image although no caption names it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


class Naming:
    """Chance that a thing is in an image none of whose captions names it.

    A thing is in a share p of all images, and a caption of such an image names it with a chance r,
    each on its own. If n captions of an image do not name it, it is there with the chance::

        p (1 - r)^n / (p (1 - r)^n + 1 - p)

    r is how often the other captions name what one caption names, starting at a half before any are
    seen; p is the share of images whose captions name the thing, over 1 - (1 - r)^n.

    Args:
        images: for each image, the things that each of its captions names.
    """

    def __init__(self, images: Iterable[Sequence[Iterable[str | None]]]) -> None:
        again: Counter[str | None] = Counter()  # k (k - 1), of k captions of n that name the thing
        chances: Counter[str | None] = Counter()  # k (n - 1)
        self._named: Counter[str | None] = Counter()
        self._images = captions = 0
        for things_of in images:
            self._images, captions = self._images + 1, captions + len(things_of)
            counts = Counter(thing for things in things_of for thing in set(things))
            self._named.update(counts.keys())
            for thing, count in counts.items():
                again[thing] += count * (count - 1)
                chances[thing] += count * (len(things_of) - 1)
        self._rate = {thing: (again[thing] + 1) / (chances[thing] + 2) for thing in self._named}
        self._captions = captions / max(self._images, 1)

    def chance(self, thing: str | None, captions: int) -> float:
        """Return the chance that a thing is in an image, `captions` of which do not name it."""
        if thing is None or thing not in self._named:
            return 0.0
        rate = self._rate[thing]
        seen = 1 - (1 - rate) ** self._captions
        share = min(self._named[thing] / self._images / seen, 1.0)
        unnamed = share * (1 - rate) ** captions
        return unnamed / (unnamed + 1 - share) if unnamed else 0.0
