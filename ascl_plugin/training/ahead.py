"""The next batch is made while the step before it is at work."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def made_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each begun in a thread when the one before is handed over.

    Pictures are decoded and copied, and steps computed, without Python's lock, so both go on at
    once where there is a second core. An item may be begun that nobody takes.

    Raises:
        Whatever `items` raise, where that item would have come.
    """
    end = object()
    with ThreadPoolExecutor(1, "batches") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
