"""One run at a time in a folder, by a lock that ends with its process."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".run.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder. The kernel frees it when the process ends, however it ends.

    A lock of the file system (POSIX, also over NFS), not the file's being there: nothing is left
    to clean up after a kill, and data workers, which are forked, do not keep it. The file says who
    holds it.

    Raises:
        FileExistsError: another process holds it; the message says which.
    """
    if fcntl is None:
        yield
        return
    with open(folder / LOCK, "a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                warnings.warn(f"{folder}: this file system has no locks ({error})", stacklevel=3)
                yield
                return
            file.seek(0)
            holder = " ".join(file.read(200).split()) or "another process"
            raise FileExistsError(
                f"{folder} is in use by {holder}; wait until that run ends, stop it (kill PID "
                "leaves a checkpoint), or choose another output_dir"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
