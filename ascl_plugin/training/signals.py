"""Ctrl-C and SIGTERM: the step under way ends first, and data workers do not hear of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopSignal:
    """Remembers that this process was asked to stop.

    Attributes:
        number: of the signal that came; None: none did.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Within it Ctrl-C and SIGTERM are remembered; a second Ctrl-C is immediate."""

        def remember(number: int, _frame: Any) -> None:
            self.number = number
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = {s: signal.signal(s, remember) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def kept_from_workers() -> Iterator[None]:
    """Processes started here never see SIGTERM and Ctrl-C, which are often sent to all of a run.

    Killed by them, workers would take the step under way down; they end when the main process
    does. Blocked rather than ignored: that holds from their first moment on.
    """
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
