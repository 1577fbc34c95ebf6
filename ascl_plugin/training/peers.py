"""Whether an error says that another process of the run is gone."""

from __future__ import annotations

from torch import distributed


def lost_peer(error: BaseException) -> bool:
    """Whether another process has ended, or has not answered in time.

    Gloo has no error of its own for that: a RuntimeError names the source file that noticed.
    """
    dist_error = getattr(distributed, "DistError", ())
    return isinstance(error, dist_error) or "/gloo/" in str(error)
