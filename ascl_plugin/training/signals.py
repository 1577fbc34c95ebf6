"""Ctrl-C and SIGTERM: the current step ends first, and data workers do not see them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from accelerate import Accelerator
from torch import distributed

_ECHO = 1.0  # seconds
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class StopSignal:
    """A memory of signals that ask the run to stop.

    Attributes:
        number: number of the signal, after `anywhere` the same on every rank; None: none came.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.number: int | None = None
        self._came = 0.0

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Remember Ctrl-C and SIGTERM within the context; a second Ctrl-C raises at once.

        Not in the first second: a launcher repeats signals that its processes have got themselves.
        With several ranks, one that was asked to stop ignores SIGTERM from then on: the launcher
        sends it to those that end last, and it would change their exit status.

        Raises:
            KeyboardInterrupt: a second Ctrl-C; or this rank was asked to stop, and others are
                gone.
        """

        def remember(number: int, _frame: FrameType | None) -> None:
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
        """Return True if any rank was asked to stop. Collective."""
        number = self.number or 0
        if self.accelerator.num_processes > 1:
            own = torch.tensor([number], device=self.accelerator.device)
            number = int(self.accelerator.gather(own).max())
        if number:
            self.number = number
        return bool(number)


def end_with_launcher() -> None:
    """Ask the kernel for SIGTERM when the launcher of several ranks ends (Linux only).

    Without it, ranks that have not found each other yet wait half an hour for a dead one.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@contextmanager
def kept_from_workers() -> Iterator[None]:
    """Block SIGTERM and Ctrl-C in processes started within the context.

    Both are often sent to all processes of a run. Killed by them, data workers would take the
    current step down; they end when the main process does. Blocked rather than ignored, because
    that holds from their first moment on.
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
    """Return True if another rank has ended, or has not answered in time.

    Gloo raises a plain RuntimeError that names its source file.
    """
    dist_error = getattr(distributed, "DistError", ())
    return isinstance(error, dist_error) or "/gloo/" in str(error)
