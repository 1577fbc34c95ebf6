"""What a parser made of a file, within limits of time and memory: read, refused, or a fault."""

from __future__ import annotations

import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fuzz_targets import Target

SECONDS, MEMORY, MESSAGE = 10, 2**31, 5000  # bytes beyond those in use; characters


class Hang(BaseException):
    """The time is over."""


def outcome(target: Target, folder: Path) -> str:
    """ "read", "refused" with an error that names the place, else what is wrong with it."""
    try:
        with limits(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(folder)
        return "read"
    except Hang:
        return f"hang: more than {SECONDS} s"
    except (ValueError, OSError, KeyError) as error:
        told = str(error)
        if len(told) > MESSAGE:
            return f"crash: a message too long, {_where(error)} ({len(told)} characters)"
        named = file_name(target)
        if str(folder) in told or (named and named in told):
            return "refused"
        return f"crash: no place in {type(error).__name__}, {_where(error)} ({told[:150]})"
    except BaseException as error:
        return f"crash: {type(error).__name__}, {_where(error)} ({str(error)[:150]})"


def file_name(target: Target) -> str:
    """The name that a message should have, where it does not have the folder's."""
    return Path(target.file).name


@contextmanager
def limits(seconds: float | None = None) -> Iterator[None]:
    """A time limit, and a limit of memory beyond what is in use."""

    def stop(*_: Any) -> None:
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


def _where(error: BaseException) -> str:
    """The last line of ours on the way to an error."""
    ours = [f for f in traceback.extract_tb(sys.exc_info()[2]) if "site-packages" not in f.filename]
    with suppress(IndexError):
        return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
    return "?"
