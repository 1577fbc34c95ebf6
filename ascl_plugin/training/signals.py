"""Ctrl-C and SIGTERM: the step under way ends first, and data workers do not hear of them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed

_ECHO = 1.0  # seconds
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class StopSignal:
    """Remembers that a process of the run was asked to stop.

    Args:
        accelerator: of the run.

    Attributes:
        number: of the signal that came, after `anywhere` the same on every process; None: none did.
    """

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator
        self.number: int | None = None
        self._came = 0.0
        # the launcher's own processes end when it does: nobody else would stop them
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Within it Ctrl-C and SIGTERM are remembered; a second Ctrl-C is immediate.

        Not in the first second: a launcher passes on what its processes were sent themselves. Of
        several processes, one that was asked to stop is deaf to SIGTERM ever after: the launcher
        sends it to those that end last, whose exit status would be another.

        Raises:
            KeyboardInterrupt: a second Ctrl-C; or this process was asked to stop, and the others
                are gone.
        """

        def remember(number: int, _frame: Any) -> None:
            now = time.monotonic()
            if self.number is None:
                self.number, self._came = number, now
            elif number == signal.SIGINT and now - self._came > _ECHO:
                raise KeyboardInterrupt

        before = {s: signal.signal(s, remember) for s in (signal.SIGINT, signal.SIGTERM)}
        deaf = False
        try:
            yield
        except RuntimeError as error:
            if self.number is None or not lost_peer(error):
                raise
            deaf = True
            raise KeyboardInterrupt(f"signal {self.number}") from error
        except KeyboardInterrupt:
            deaf = self.accelerator.num_processes > 1
            raise
        finally:
            if deaf:
                before[signal.SIGTERM] = signal.SIG_IGN
            for number, handler in before.items():
                signal.signal(number, handler)

    def anywhere(self) -> bool:
        """Whether any process was asked to stop, or lost its launcher. Every process must ask."""
        if self.number is None and self._launcher not in (None, os.getppid()):
            self.number = signal.SIGTERM
        number = self.number or 0
        if self.accelerator.num_processes > 1:
            own = torch.tensor([number], device=self.accelerator.device)
            number = int(self.accelerator.gather(own).max())
        if number:
            self.number = number
        return bool(number)


def end_with_launcher() -> None:
    """SIGTERM comes when the launcher of several processes ends, however it ends (Linux alone).

    Without it, processes that have not found each other yet wait half an hour for a dead one.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


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


def lost_peer(error: BaseException) -> bool:
    """Whether another process has ended, or has not answered in time.

    Gloo has no error of its own for that: a RuntimeError names the source file that noticed.
    """
    dist_error = getattr(distributed, "DistError", ())
    return isinstance(error, dist_error) or "/gloo/" in str(error)
