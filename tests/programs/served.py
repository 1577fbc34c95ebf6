"""`ascl demo` as a process of its own, until it is interrupted."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(
    command: Sequence[object], folder: Path | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Yield the address that the command prints, and a list that takes its errors at the end.

    The interrupt must end it with status 0.
    """
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    errors: list[str] = []
    try:
        yield next(line.split()[0] for line in process.stdout or () if "http" in line), errors
    finally:
        process.send_signal(signal.SIGINT)
        errors.append(process.communicate(timeout=60)[1])
        assert process.returncode == 0, errors
