"""`log.jsonl` of a run: one line for each event, and none for a step that was repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ascl_plugin.disk import write_text, writing

LOG = "log.jsonl"


def write_line(folder: Path, values: Mapping[str, object]) -> None:
    """Add a line to the log in a run's folder."""
    path = folder / LOG
    with writing(path), open(path, "a") as file:
        file.write(json.dumps(values) + "\n")


def drop_after(folder: Path, step: int) -> None:
    """Remove lines of steps after the checkpoint that a run resumes from."""
    path = folder / LOG
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:  # a line cut short by the kill
            continue
    write_text(path, "".join(kept))
