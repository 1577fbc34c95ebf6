"""Limits of time and memory, and the outcome of a parser within them: read, refused, or a fault."""

from __future__ import annotations

import resource
import signal
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

SECONDS, MEMORY, MESSAGE = 10, 2**31, 5000  # bytes beyond those in use; characters


class Hang(BaseException):
    """The time is over."""


def outcome(target, folder):
    """Return "read", "refused" if an error names the file or its folder, else the fault."""
    try:
        with limits(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(folder)
        return "read"
    except Hang:
        return f"hang: more than {SECONDS} s"
    except (ValueError, OSError, KeyError) as error:
        message = str(error)
        if len(message) > MESSAGE:
            return f"crash: a message too long, {_where(error)} ({len(message)} characters)"
        name = Path(target.file).name
        if str(folder) in message or (name and name in message):
            return "refused"
        return f"crash: no place in {type(error).__name__}, {_where(error)} ({message[:150]})"
    except BaseException as error:
        return f"crash: {type(error).__name__}, {_where(error)} ({str(error)[:150]})"


@contextmanager
def limits(seconds=None):
    """Limit the time, and the memory beyond the amount in use."""

    def stop(*_):
        raise Hang

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    signal.setitimer(signal.ITIMER_REAL, seconds or SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


def _where(error):
    """Return the last line of ours on the way to an error."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
