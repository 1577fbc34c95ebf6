"""Feeds one parser of ours what reaches new lines of it, by libFuzzer; `pip install atheris`.

    python tests/faults/fuzz_guided.py "regions, TSV" -max_total_time=60

The first fault, as `fuzz.py` defines it, ends the run and is left in a file. Linux only.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ascl_plugin"]):
    from fuzz_outcome import outcome
    from fuzz_targets import TARGETS, file_of

    target = TARGETS[sys.argv[1]]
    folder = Path(tempfile.mkdtemp())
    target.make(folder)
    outcome(target, folder)  # what it imports is loaded
path = file_of(target, folder)
corpus = Path(tempfile.mkdtemp())
(corpus / "valid").write_bytes(path.read_bytes())


def once(data: bytes) -> None:
    """One input."""
    path.write_bytes(data)
    told = outcome(target, folder)
    if told not in ("read", "refused"):
        raise AssertionError(told)


atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus)], once)
atheris.Fuzz()
